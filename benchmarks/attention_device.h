#pragma once

#include "benchmarks/benchmark_arguments.h"
#include "benchmarks/benchmark_device.h"

namespace serrate {

/// attention_benchmark --device cuda: times workloads, forward and backward, each against the time
/// that a copy or a product of the same run would take. Asks for the arguments that are left.
void run_workloads(BenchmarkDevice& device, BenchmarkArguments& arguments);

}  // namespace serrate
