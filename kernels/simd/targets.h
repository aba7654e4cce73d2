// The instruction sets that Highway kernels are compiled for, chosen at run time: AVX-512, AVX2
// and plain C++; the ones between would only add build time. Include before hwy/foreach_target.h.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#endif
