#include "tests/support/simt/bulk_copy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/simt/asynchronous.h"
#include "tests/support/simt/cluster.h"
#include "tests/support/simt/mbarrier.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/number.h"
#include "tests/support/simt/observe.h"
#include "tests/support/simt/source_line.h"
#include "tests/support/simt/tensor_map.h"

namespace simt {
namespace {

std::uintptr_t address_of(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data);
}

void require(bool holds, const std::string& text, const Where& where) {
  if (!holds) fail_here(Kind::kBadInstruction, text, where);
}

void require_places(const char* name, std::uintptr_t shared, std::uintptr_t global,
                    const Where& where) {
  const Memory& memory = Memory::instance();
  require(is_own_shared(shared) && memory.contains(global) && !memory.is_shared(global),
          std::string("issues ") + name + " otherwise than between global and shared memory",
          where);
}

std::vector<BoxPiece> pieces_of(std::uintptr_t shared, std::uintptr_t global, unsigned bytes) {
  std::vector<BoxPiece> pieces;
  for (unsigned i = 0; i < bytes; i += 16) pieces.push_back({shared + i, global + i, 16, true});
  return pieces;
}

void require_sixteens(const char* name, std::uintptr_t a, std::uintptr_t b, unsigned bytes,
                      const Where& where) {
  require(a % 16 == 0 && b % 16 == 0 && bytes % 16 == 0,
          std::string("issues ") + name + " whose addresses or size are no multiples of 16 bytes",
          where);
}

void require_bulk(const char* name, std::uintptr_t shared, std::uintptr_t global, unsigned bytes,
                  const Where& where) {
  require_places(name, shared, global, where);
  require_sixteens(name, shared, global, bytes, where);
}

const TensorMap& require_box(const char* name, std::uintptr_t shared, const CUtensorMap* map,
                             unsigned rank, const Where& where) {
  const TensorMap* tensor = tensor_map(map);
  require(tensor != nullptr,
          std::string("issues ") + name + " by a tensor map that nothing encoded", where);
  require(tensor->rank == rank,
          std::string("issues ") + name + " of " + std::to_string(rank) +
              " dimensions by a tensor map of " + std::to_string(tensor->rank),
          where);
  require(
      is_own_shared(shared) && shared % 128 == 0,
      std::string("issues ") + name + " whose box is not in shared memory, aligned to 128 bytes",
      where);
  return *tensor;
}

// Global memory is touched by runs of bytes, so that a sector counts once.
void observe_global(Asynchronous& self, const std::vector<BoxPiece>& pieces, Touch touch) {
  for (std::size_t i = 0; i < pieces.size();) {
    const std::uintptr_t begin = pieces[i].global;
    unsigned bytes = 0;
    for (; i < pieces.size() && pieces[i].inside && pieces[i].global == begin + bytes; ++i) {
      bytes += pieces[i].bytes;
    }
    if (bytes > 0) {
      observe_asynchronous(self, begin, bytes, touch);
    } else {
      ++i;
    }
  }
}

struct Target {  // of a load, in one block
  std::uintptr_t shift, mbarrier;
};

struct Load {
  std::vector<BoxPiece> pieces;  // of its own block
  std::vector<Target> targets;
  unsigned bytes;
  std::uint32_t fill;  // four bytes, of what is outside
};

void write_piece(const Asynchronous& self, const BoxPiece& piece, std::uintptr_t shared,
                 std::uint32_t fill) {
  auto* to = reinterpret_cast<std::uint8_t*>(shared);
  if (piece.inside) {
    std::memcpy(to, reinterpret_cast<const void*>(piece.global), piece.bytes);
  } else {
    for (unsigned i = 0; i < piece.bytes; ++i) {
      to[i] = static_cast<std::uint8_t>(fill >> i % 4 * 8);
    }
  }
  observe_asynchronous(self, shared, piece.bytes, Touch::kWrite);
}

void issue_load(const char* name, Load load, std::uintptr_t code) {
  const InSimulator scope;
  for (const BoxPiece& piece : load.pieces) {
    if (piece.inside) require_memory(piece.global, piece.bytes, Touch::kRead, code);
    for (const Target& target : load.targets) {
      require_memory(piece.shared + target.shift, piece.bytes, Touch::kWrite, code);
    }
  }
  for (const BoxPiece& piece : load.pieces) {
    for (const Target& target : load.targets) unsettle(piece.shared + target.shift, piece.bytes);
  }
  issue(name, code, [load = std::move(load)](Asynchronous& self) {
    observe_global(self, load.pieces, Touch::kRead);
    for (const Target& target : load.targets) {
      for (const BoxPiece& piece : load.pieces) {
        write_piece(self, piece, piece.shared + target.shift, load.fill);
      }
      complete_bytes(self, target.mbarrier, load.bytes);
    }
  });
}

// What the device writes for an element outside the tensor, when it is not zero: a NaN.
std::uint32_t fill_of(const TensorMap& map) {
  if (!map.fills_nan) return 0;
  return element_bytes(map) == 2 ? 0x7FFF7FFF : 0x7FFFFFFF;
}

float flushed(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? 0.0f : value;
}

template <typename T, typename Add>
void add_elements(std::uint8_t* to, const std::uint8_t* from, unsigned bytes, const Add& add) {
  for (unsigned i = 0; i < bytes; i += sizeof(T)) {
    T a, b;
    std::memcpy(&a, to + i, sizeof a);
    std::memcpy(&b, from + i, sizeof b);
    a = add(a, b);
    std::memcpy(to + i, &a, sizeof a);
  }
}

void add_piece(CUtensorMapDataType type, std::uint8_t* to, const std::uint8_t* from,
               unsigned bytes) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
      return add_elements<float>(to, from, bytes,
                                 [](float a, float b) { return flushed(flushed(a) + flushed(b)); });
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
      return add_elements<std::uint16_t>(to, from, bytes, [](std::uint16_t a, std::uint16_t b) {
        return to_f16(from_f16(a) + from_f16(b));
      });
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return add_elements<std::uint16_t>(to, from, bytes, [](std::uint16_t a, std::uint16_t b) {
        return to_bf16(from_bf16(a) + from_bf16(b));
      });
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
      return add_elements<std::uint64_t>(to, from, bytes,
                                         [](std::uint64_t a, std::uint64_t b) { return a + b; });
    default:
      return add_elements<std::uint32_t>(to, from, bytes,
                                         [](std::uint32_t a, std::uint32_t b) { return a + b; });
  }
}

bool can_add(unsigned type) {
  return type == CU_TENSOR_MAP_DATA_TYPE_UINT32 || type == CU_TENSOR_MAP_DATA_TYPE_INT32 ||
         type == CU_TENSOR_MAP_DATA_TYPE_UINT64 || type == CU_TENSOR_MAP_DATA_TYPE_INT64 ||
         type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ||
         type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
}

struct Store {
  std::vector<BoxPiece> pieces;  // all inside
  BulkWrite write;
  CUtensorMapDataType type;  // of what is added
};

void issue_store(const char* name, Store store, std::uintptr_t code) {
  const InSimulator scope;
  const Touch touch = store.write == BulkWrite::kAdd ? Touch::kAtomic : Touch::kWrite;
  for (const BoxPiece& piece : store.pieces) {
    require_memory(piece.global, piece.bytes, touch, code);
    require_memory(piece.shared, piece.bytes, Touch::kRead, code);
  }
  const auto shared_store = std::make_shared<const Store>(std::move(store));
  const auto staged = std::make_shared<std::vector<std::uint8_t>>();
  const auto read = issue(name, code, [shared_store, staged](Asynchronous& self) {
    for (const BoxPiece& piece : shared_store->pieces) {
      observe_asynchronous(self, piece.shared, piece.bytes, Touch::kRead);
      const auto* from = reinterpret_cast<const std::uint8_t*>(piece.shared);
      staged->insert(staged->end(), from, from + piece.bytes);
    }
  });
  const auto write = issue(
      name, code,
      [shared_store, staged, touch](Asynchronous& self) {
        const std::uint8_t* from = staged->data();
        observe_global(self, shared_store->pieces, touch);
        for (const BoxPiece& piece : shared_store->pieces) {
          auto* to = reinterpret_cast<std::uint8_t*>(piece.global);
          if (shared_store->write == BulkWrite::kAdd) {
            add_piece(shared_store->type, to, from, piece.bytes);
          } else {
            std::memcpy(to, from, piece.bytes);
          }
          from += piece.bytes;
        }
      },
      read);
  BulkGroup& group = running_block->current->bulk;
  group.reads.push_back(read);
  group.writes.push_back(write);
}

}  // namespace

void load_bulk(void* shared, const void* global, unsigned bytes, void* mbarrier,
               const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const char* name = "a bulk load";
  require_bulk(name, address_of(shared), address_of(global), bytes, where);
  require_mbarrier(mbarrier, code, where);
  issue_load(name,
             {pieces_of(address_of(shared), address_of(global), bytes),
              {{0, address_of(mbarrier)}},
              bytes,
              0},
             code);
}

void load_box(void* shared, const CUtensorMap* map, unsigned rank, const int* coordinates,
              void* mbarrier, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const char* name = "a tensor load";
  const TensorMap& tensor = require_box(name, address_of(shared), map, rank, where);
  require_mbarrier(mbarrier, code, where);
  // All of the box counts, what is outside the tensor too.
  issue_load(name,
             {box_pieces(tensor, coordinates, address_of(shared)),
              {{0, address_of(mbarrier)}},
              box_bytes(tensor),
              fill_of(tensor)},
             code);
}

void load_box_to(unsigned blocks, void* shared, const CUtensorMap* map, unsigned rank,
                 const int* coordinates, void* mbarrier, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const char* name = "a tensor load to blocks";
  const TensorMap& tensor = require_box(name, address_of(shared), map, rank, where);
  std::vector<Target> targets;
  for (unsigned left = blocks; left != 0; left &= left - 1) {
    const auto block = static_cast<unsigned>(std::countr_zero(left));
    targets.push_back({map_shared(address_of(shared), block, where) - address_of(shared),
                       map_shared(address_of(mbarrier), block, where)});
    require_mbarrier(reinterpret_cast<const void*>(targets.back().mbarrier), code, where);
  }
  issue_load(name,
             {box_pieces(tensor, coordinates, address_of(shared)), std::move(targets),
              box_bytes(tensor), fill_of(tensor)},
             code);
}

void store_bulk(BulkWrite write, void* global, const void* shared, unsigned bytes,
                const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const char* name = write == BulkWrite::kAdd ? "a bulk addition" : "a bulk store";
  require_bulk(name, address_of(shared), address_of(global), bytes, where);
  issue_store(name,
              {pieces_of(address_of(shared), address_of(global), bytes), write,
               CU_TENSOR_MAP_DATA_TYPE_FLOAT32},
              code);
}

void store_box(BulkWrite write, const CUtensorMap* map, unsigned rank, const int* coordinates,
               const void* shared, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const char* name = write == BulkWrite::kAdd ? "a tensor addition" : "a tensor store";
  const TensorMap& tensor = require_box(name, address_of(shared), map, rank, where);
  require(std::all_of(coordinates, coordinates + rank, [](int c) { return c >= 0; }),
          std::string("issues ") + name + " at negative coordinates", where);
  require(write == BulkWrite::kStore || can_add(tensor.type),
          std::string("issues ") + name + " of elements that cannot be added", where);
  std::vector<BoxPiece> pieces = box_pieces(tensor, coordinates, address_of(shared));
  std::erase_if(pieces, [](const BoxPiece& piece) { return !piece.inside; });
  issue_store(name, {std::move(pieces), write, static_cast<CUtensorMapDataType>(tensor.type)},
              code);
}

void commit_bulk() {
  const InSimulator scope;
  Thread& thread = *running_block->current;
  thread.bulk_groups.push_back(std::exchange(thread.bulk, {}));
}

void wait_for_bulk(BulkWait what, unsigned pending) {
  const InSimulator scope;
  Thread& thread = *running_block->current;
  if (thread.bulk_groups.size() <= pending) return;
  const auto end = thread.bulk_groups.end() - pending;
  for (auto group = thread.bulk_groups.begin(); group != end; ++group) {
    wait_for(what == BulkWait::kRead ? group->reads : group->writes);
    group->reads.clear();
  }
  if (what == BulkWait::kDone) thread.bulk_groups.erase(thread.bulk_groups.begin(), end);
}

void report_left_behind(Block& block) {
  const auto report_left = [&](unsigned thread, std::uintptr_t code, const std::string& text) {
    report(
        finding_about(Kind::kInFlight, block.threads[thread], text, source_line(code - 1).place));
  };
  for (const Thread& thread : block.threads) {
    const auto report_first = [&](const BulkGroup& group) {
      if (group.reads.empty()) return false;
      report_left(thread.number, group.reads.front()->code,
                  std::string("issued ") + group.reads.front()->name +
                      ", and exits before it waits until the source was read");
      return true;
    };
    if (report_first(thread.bulk)) continue;
    for (const BulkGroup& group : thread.bulk_groups) {
      if (report_first(group)) break;
    }
  }
  for (const auto& operation : block.under_way) {
    if (operation->name != std::string("a bulk load") &&
        operation->name != std::string("a tensor load")) {
      continue;
    }
    report_left(
        operation->issuer, operation->code,
        std::string("issued ") + operation->name + ", which the block's end did not wait for");
  }
  for (const auto& [address, mbarrier] : block.mbarriers) {
    if (mbarrier.seen || mbarrier.copied_by == 0) continue;
    report_left(mbarrier.initialized_by, mbarrier.copied_by,
                "initialised an mbarrier for a copy that the block's end did not wait for");
  }
}

}  // namespace simt
