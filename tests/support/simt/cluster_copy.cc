#include <cstring>
#include <utility>
#include <vector>

#include "tests/support/simt/asynchronous.h"
#include "tests/support/simt/bulk_copy.h"
#include "tests/support/simt/cluster.h"
#include "tests/support/simt/mbarrier.h"
#include "tests/support/simt/observe.h"

namespace simt {
namespace {

std::uintptr_t address_of(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data);
}

// What goes to a block of the cluster, and signals an mbarrier there.
struct Sent {
  std::uintptr_t target, signal;
  unsigned bytes;
};

Sent sent_to(unsigned rank, void* to, unsigned bytes, void* mbarrier, std::uintptr_t code,
             const Where& where) {
  const Sent sent{map_shared(address_of(to), rank, where),
                  map_shared(address_of(mbarrier), rank, where), bytes};
  if (sent.target % 16 != 0 || bytes % 16 != 0) {
    fail_here(Kind::kBadInstruction,
              "sends to another block by an address or a size that is no multiple of 16 bytes",
              where);
  }
  require_mbarrier(reinterpret_cast<const void*>(sent.signal), code, where);
  require_memory(sent.target, bytes, Touch::kWrite, code);
  return sent;
}

void arrive(const Asynchronous& self, const Sent& sent, const void* from) {
  std::memcpy(reinterpret_cast<void*>(sent.target), from, sent.bytes);
  observe_asynchronous(self, sent.target, sent.bytes, Touch::kWrite);
  complete_bytes(self, sent.signal, sent.bytes);
}

}  // namespace

void copy_bulk_to(unsigned rank, void* to, const void* shared, unsigned bytes, void* mbarrier,
                  const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const char* name = "a copy to another block";
  const std::uintptr_t source = map_shared(address_of(shared), cluster_rank(), where);
  const Sent sent = sent_to(rank, to, bytes, mbarrier, code, where);
  if (source % 16 != 0) {
    fail_here(Kind::kBadInstruction,
              "sends to another block from an address that is no multiple of 16 bytes", where);
  }
  require_memory(source, bytes, Touch::kRead, code);
  unsettle(sent.target, bytes);
  issue(name, code, [=](Asynchronous& self) {
    Block& block = *running_block;
    observe_asynchronous(self, source, bytes, Touch::kRead);
    note_use(block, self.number, {block.order.epoch(self.number), self.issuer, name, code});
    arrive(self, sent, reinterpret_cast<const void*>(source));
  });
}

void store_async(unsigned rank, void* to, const void* value, unsigned bytes, void* mbarrier,
                 const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const Sent sent = sent_to(rank, to, bytes, mbarrier, code, where);
  const auto* begin = static_cast<const std::uint8_t*>(value);
  unsettle(sent.target, bytes);
  issue("a store to another block", code,
        [=, stored = std::vector<std::uint8_t>(begin, begin + bytes)](Asynchronous& self) {
          arrive(self, sent, stored.data());
        });
}

}  // namespace simt
