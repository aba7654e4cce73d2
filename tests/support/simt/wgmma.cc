#include "tests/support/simt/wgmma.h"

#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/support/simt/asynchronous.h"
#include "tests/support/simt/block.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/sectors.h"
#include "tests/support/simt/source_line.h"
#include "tests/support/simt/wgmma_tile.h"

namespace simt {
namespace {

constexpr unsigned kWarps = 4;  // of a warpgroup
constexpr unsigned kRows = 16;  // of a warp

const char* name_of(MmaType type) {
  switch (type) {
    case MmaType::kBf16:
      return "wgmma.bf16";
    case MmaType::kF16:
      return "wgmma.f16";
    case MmaType::kTf32:
      return "wgmma.tf32";
    case MmaType::kE4m3:
      return "wgmma.e4m3";
  }
  return "?";
}

struct Registers {
  std::uintptr_t begin, end;
  std::shared_ptr<Asynchronous> product;
  MmaType type;
  int cols;  // 0 for an operand
};

}  // namespace

// What products of a thread own, and what it touched since its last fence.
struct ThreadProducts {
  bool fenced = false;
  std::vector<Registers> under_way;
  std::vector<bool> touched;  // by words of the stack
  std::vector<std::size_t> touched_words;
};

// What a warp issued.
struct WarpProducts {
  std::vector<WgmmaProduct> issued;
  std::shared_ptr<Asynchronous> last;
  std::vector<std::shared_ptr<Asynchronous>> open;                 // since the last commit
  std::vector<std::vector<std::shared_ptr<Asynchronous>>> groups;  // the oldest first
  std::vector<std::uintptr_t> codes;                               // where each was issued
};

namespace {

WarpProducts& products_of(Block& block, unsigned thread) {
  const unsigned warp = thread / kWarpSize;
  if (block.products.size() <= warp) block.products.resize(warp + 1);
  if (!block.products[warp]) block.products[warp] = std::make_shared<WarpProducts>();
  return *block.products[warp];
}

ThreadProducts& products_of(Thread& thread) {
  if (!thread.products) thread.products = std::make_shared<ThreadProducts>();
  return *thread.products;
}

struct Lane {
  WgmmaProduct product;
  float* d;
  const std::uint32_t* a;
  std::uintptr_t code;
  Where where;
  Thread* thread;
  std::uint32_t a_values[4] = {};
};

std::string in_hex(std::uint64_t bits) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(bits));
  return text;
}

void require_descriptor(std::uint64_t bits, const Where& where) {
  if (bits & kReservedDescriptorBits) {
    fail_here(Kind::kBadInstruction,
              "passes wgmma the descriptor " + in_hex(bits) +
                  ": bits that have to be zero are not (the base offset is one of them)",
              where);
  }
}

// Registers of a new product: nobody touched them since the fence, nor does a product of another
// shape use them.
void require_registers(ThreadProducts& mine, std::uintptr_t stack_begin, std::uintptr_t begin,
                       std::size_t bytes, const WgmmaProduct* accumulates, const Where& where) {
  bool touched = !mine.fenced;
  for (std::uintptr_t at = begin; at < begin + bytes && !touched; at += 4) {
    const std::size_t word = (at - stack_begin) / 4;
    touched = word < mine.touched.size() && mine.touched[word];
  }
  if (touched) {
    report_here(Kind::kRegisters,
                std::string("issues wgmma with ") + (accumulates ? "accumulators" : "an operand") +
                    " in registers that it accessed without a wgmma.fence in between",
                where);
  }
  for (const Registers& other : mine.under_way) {
    if (begin + bytes <= other.begin || begin >= other.end) continue;
    const bool chained = accumulates && other.cols == accumulates->cols &&
                         other.type == accumulates->type && other.begin == begin;
    const bool both_read = !accumulates && other.cols == 0;
    if (chained || both_read) continue;
    report_here(Kind::kRegisters,
                "issues wgmma with registers of a product of another shape that is under way",
                where);
  }
}

// The effect: 16 rows of the warp.
void multiply(const WgmmaProduct& product, const std::vector<Lane>& lanes, Asynchronous& self) {
  const MmaType type = product.type;
  const unsigned depth = depth_of(type), cols = static_cast<unsigned>(product.cols);
  const unsigned warp = lanes[0].thread->number / kWarpSize % kWarps;
  Factor a[kRows][32];
  std::vector<Factor> b(std::size_t{cols} * depth);
  const auto read = [&](const Tile& tile) {
    for (const std::uintptr_t piece : tile.pieces()) {
      observe_asynchronous(self, piece, 16, Touch::kRead);
    }
  };
  if (lanes[0].a) {
    for (unsigned l = 0; l < kWarpSize; ++l) {
      for (unsigned i = 0; i < 4 * elements_of(type); ++i) {
        const RowAndDepth at = element_of_a(type, l, i);
        a[at.row][at.depth] = factor(element_of(type, lanes[l].a_values, i));
      }
    }
  } else {
    const Tile tile{type, product.a_by_rows, kRows * warp, kRows, product.a};
    read(tile);
    for (unsigned row = 0; row < kRows; ++row) {
      for (unsigned k = 0; k < depth; ++k) a[row][k] = factor(tile.element(row, k));
    }
  }
  const Tile tile{type, product.b_by_rows, 0, cols, product.b};
  read(tile);
  for (unsigned col = 0; col < cols; ++col) {
    for (unsigned k = 0; k < depth; ++k) b[col * depth + k] = factor(tile.element(col, k));
  }
  const int fraction = type == MmaType::kE4m3 ? 13 : 25;
  for (const Lane& lane : lanes) {
    const unsigned l = lane.thread->number % kWarpSize;
    for (unsigned r = 0; r < cols / 2; ++r) {
      const unsigned row = l / 4 + 8 * (r / 2 % 2), col = 8 * (r / 4) + 2 * (l % 4) + r % 2;
      lane.d[r] = fused_sum(product.adds ? lane.d[r] : 0, a[row], &b[col * depth], depth, fraction);
    }
  }
}

void issue_for_warp(void* const data[kWarpSize]) {
  Block& block = *running_block;
  std::vector<Lane> lanes;
  for (unsigned l = 0; l < kWarpSize; ++l) lanes.push_back(*static_cast<const Lane*>(data[l]));
  const WgmmaProduct& product = lanes[0].product;
  const Where& where = lanes[0].where;
  for (const Lane& lane : lanes) {
    if (lane.product == product) continue;
    fail_here(Kind::kWarpDivergence,
              "issues wgmma with other operands than " + thread_name(*lanes[0].thread), where);
  }
  const unsigned first = lanes[0].thread->number;
  WarpProducts& warp = products_of(block, first);
  // The other warps of the warpgroup: the n-th product of each is the same.
  const unsigned group = first / (kWarps * kWarpSize) * kWarps;
  for (unsigned w = group; w < group + kWarps; ++w) {
    if (w * kWarpSize >= block.size()) {
      fail_here(Kind::kWarpDivergence, "issues wgmma in a warpgroup that has fewer than four warps",
                where);
    }
    const WarpProducts& other = products_of(block, w * kWarpSize);
    if (other.issued.size() > warp.issued.size() &&
        !(other.issued[warp.issued.size()] == product)) {
      fail_here(Kind::kWarpDivergence,
                "issues another wgmma than warp " + std::to_string(w) +
                    " of the same warpgroup did in its place",
                where);
    }
  }
  const auto require_tile = [&](const Tile& tile) {
    for (const std::uintptr_t piece : tile.pieces()) {
      require_memory(piece, 16, Touch::kRead, lanes[0].code);
    }
  };
  const unsigned number = first / kWarpSize % kWarps;
  if (!lanes[0].a) {
    require_tile({product.type, product.a_by_rows, kRows * number, kRows, product.a});
  }
  require_tile(
      {product.type, product.b_by_rows, 0, static_cast<unsigned>(product.cols), product.b});
  warp.issued.push_back(product);
  warp.codes.push_back(lanes[0].code);
  std::vector<unsigned> threads;
  for (const Lane& lane : lanes) threads.push_back(lane.thread->number);
  auto operation = issue(
      name_of(product.type), lanes[0].code,
      [product, lanes](Asynchronous& self) { multiply(product, lanes, self); }, warp.last, threads);
  warp.last = operation;
  warp.open.push_back(operation);
  const int cols = product.cols;
  for (const Lane& lane : lanes) {
    ThreadProducts& mine = products_of(*lane.thread);
    const auto d = reinterpret_cast<std::uintptr_t>(lane.d);
    mine.under_way.push_back(
        {d, d + sizeof(float) * static_cast<unsigned>(cols) / 2, operation, product.type, cols});
    if (!lane.a) continue;
    const auto a = reinterpret_cast<std::uintptr_t>(lane.a);
    mine.under_way.push_back({a, a + 16, operation, product.type, 0});
  }
  count_tensor_core_operation(block);
}

void commit_for_warp(void* const data[kWarpSize]) {
  WarpProducts& warp = products_of(*running_block, *static_cast<const unsigned*>(data[0]));
  warp.groups.push_back(std::exchange(warp.open, {}));
}

struct WaitLane {
  Thread* thread;
  unsigned pending;
};

void wait_for_warp(void* const data[kWarpSize]) {
  Block& block = *running_block;
  const auto at = [&](unsigned l) { return static_cast<const WaitLane*>(data[l]); };
  WarpProducts& warp = products_of(block, at(0)->thread->number);
  while (warp.groups.size() > at(0)->pending) {
    for (const auto& operation : warp.groups.front()) {
      finish(block, operation);
      for (unsigned l = 0; l < kWarpSize; ++l) {
        block.order.acquire(at(l)->thread->number, operation->clock);
        ThreadProducts& mine = products_of(*at(l)->thread);
        std::erase_if(mine.under_way, [&](const Registers& r) { return r.product == operation; });
      }
    }
    warp.groups.erase(warp.groups.begin());
  }
}

void do_nothing(void* const[kWarpSize]) {}

}  // namespace

void issue_product(const WgmmaProduct& product, float* d, const std::uint32_t* a,
                   const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  Thread& thread = *running_block->current;
  ThreadProducts& mine = products_of(thread);
  if (!a) require_descriptor(product.a, where);
  require_descriptor(product.b, where);
  require_registers(mine, thread.stack_begin, reinterpret_cast<std::uintptr_t>(d),
                    sizeof(float) * static_cast<unsigned>(product.cols) / 2, &product, where);
  Lane lane{product, d, a, code, where, &thread};
  if (a) {
    require_registers(mine, thread.stack_begin, reinterpret_cast<std::uintptr_t>(a), 16, nullptr,
                      where);
    std::memcpy(lane.a_values, a, sizeof lane.a_values);
  }
  warp_collective(name_of(product.type), &lane, issue_for_warp, where);
}

void fence_products(const Where& where) {
  const InSimulator scope;
  unsigned number = running_block->current->number;
  warp_collective("wgmma.fence", &number, do_nothing, where);
  ThreadProducts& mine = products_of(*running_block->current);
  mine.fenced = true;
  for (const std::size_t word : mine.touched_words) mine.touched[word] = false;
  mine.touched_words.clear();
}

void commit_products(const Where& where) {
  const InSimulator scope;
  unsigned number = running_block->current->number;
  warp_collective("wgmma.commit_group", &number, commit_for_warp, where);
}

void wait_for_products(unsigned pending, const Where& where) {
  const InSimulator scope;
  WaitLane lane{running_block->current, pending};
  warp_collective("wgmma.wait_group", &lane, wait_for_warp, where);
}

void touch_registers(Thread& thread, std::uintptr_t address, std::size_t bytes, Touch touch,
                     std::uintptr_t code) {
  ThreadProducts& mine = *thread.products;
  for (const Registers& registers : mine.under_way) {
    if (address + bytes <= registers.begin || address >= registers.end) continue;
    if (registers.cols == 0 && touch == Touch::kRead) continue;
    report_at_code(Kind::kRegisters,
                   std::string(touch == Touch::kRead ? "reads" : "writes") +
                       (registers.cols ? " an accumulator" : " an operand") +
                       " of a wgmma that it has not waited for",
                   code);
    break;
  }
  for (std::uintptr_t at = address / 4 * 4; at < address + bytes; at += 4) {
    const std::size_t word = (at - thread.stack_begin) / 4;
    if (word >= mine.touched.size())
      mine.touched.resize((thread.stack_end - thread.stack_begin) / 4);
    if (mine.touched[word]) continue;
    mine.touched[word] = true;
    mine.touched_words.push_back(word);
  }
}

void report_products_left_behind(Block& block) {
  const auto say = [&](unsigned thread, Kind kind, std::uintptr_t code, const std::string& text) {
    report(finding_about(kind, block.threads[thread], text, source_line(code - 1).place));
  };
  for (unsigned w = 0; w < block.products.size(); ++w) {
    if (!block.products[w] || block.products[w]->issued.empty()) continue;
    const WarpProducts& warp = *block.products[w];
    if (!warp.open.empty() || !warp.groups.empty()) {
      say(w * kWarpSize, Kind::kInFlight, warp.codes.back(),
          "issued a wgmma that the block's end did not wait for");
    }
    const unsigned group = w / kWarps * kWarps;
    for (unsigned other = group; other < group + kWarps; ++other) {
      const std::size_t issued = other < block.products.size() && block.products[other]
                                     ? block.products[other]->issued.size()
                                     : 0;
      if (issued >= warp.issued.size()) continue;
      say(w * kWarpSize, Kind::kWarpDivergence, warp.codes[issued],
          "issued a wgmma that warp " + std::to_string(other) + " of its warpgroup did not");
      break;
    }
  }
}

}  // namespace simt
