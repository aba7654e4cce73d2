#include <cuda_runtime.h>

#include "tests/support/simt/block.h"
#include "tests/support/simt/observe.h"

namespace simt {
namespace {

template <typename T>
T updated(AtomicOperation operation, T old, T value, T expected) {
  switch (operation) {
    case AtomicOperation::kAdd:
      return old + value;
    case AtomicOperation::kMin:
      return value < old ? value : old;
    case AtomicOperation::kMax:
      return old < value ? value : old;
    case AtomicOperation::kExchange:
      return value;
    case AtomicOperation::kCompareAndSwap:
      return old == expected ? value : old;
    default:
      break;
  }
  if constexpr (std::is_integral_v<T>) {
    switch (operation) {
      case AtomicOperation::kAnd:
        return old & value;
      case AtomicOperation::kOr:
        return old | value;
      default:
        return old ^ value;
    }
  }
  return old;
}

}  // namespace

template <typename T>
T atomic_update(T* address, AtomicOperation operation, T value, T expected) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  observe(at, sizeof(T), Touch::kAtomic, true, code);
  const InSimulator scope;
  atomic_order(at);
  const T old = *address;
  *address = updated(operation, old, value, expected);
  if (schedule()() % 4 == 0) yield(Where::current(), code);  // others come between two atomics
  return old;
}

template int atomic_update(int*, AtomicOperation, int, int);
template unsigned atomic_update(unsigned*, AtomicOperation, unsigned, unsigned);
template unsigned long long atomic_update(unsigned long long*, AtomicOperation, unsigned long long,
                                          unsigned long long);
template float atomic_update(float*, AtomicOperation, float, float);
template double atomic_update(double*, AtomicOperation, double, double);

}  // namespace simt
