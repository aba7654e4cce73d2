set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set(CMAKE_CXX_EXTENSIONS OFF)

# What every target of the project is compiled with.
add_library(serrate_options INTERFACE)
target_compile_features(serrate_options INTERFACE cxx_std_20)
if(SERRATE_SIMT)  # before the root: its kernels/cuda/primitives.cuh takes the place of ours
  target_include_directories(serrate_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/tests/support/simt/include>)
endif()
target_include_directories(serrate_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_compile_options(serrate_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${SERRATE_WERROR}>>:-Werror>
  # CMake 3.25 does not know CUDA_STANDARD 20. 554: of a conversion that a requires clause leaves out.
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 --expt-relaxed-constexpr --diag-suppress=554 -Xcompiler=-Wall,-Wextra,-Wshadow>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${SERRATE_WERROR}>>:-Werror=all-warnings -Xcompiler=-Werror>)
if(CMAKE_UNITY_BUILD)  # what GCC warns of across the sources of a unit that is nothing by itself
  target_compile_options(serrate_options INTERFACE
    "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage;-Wno-shadow;-Wshadow=local>")
endif()
if(SERRATE_SANITIZE)
  target_compile_options(serrate_options INTERFACE -fsanitize=${SERRATE_SANITIZE}
    -fno-sanitize-recover=all -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS)
  target_link_options(serrate_options INTERFACE -fsanitize=${SERRATE_SANITIZE})
endif()
if(SERRATE_SANITIZE OR SERRATE_SIMT)
  # Kernels for AVX2 and in plain C++ alone (kernels/simd/targets.h): AVX-512 would add minutes.
  target_compile_definitions(serrate_options INTERFACE
    "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4|HWY_AVX3|HWY_AVX3_DL)")
endif()
if(SERRATE_SANITIZE MATCHES "address,undefined" AND NOT SERRATE_FUZZ)
  # Before each access, whether the pointer is null or aligned, and to what it says: half the time of compiling.
  # AddressSanitizer finds null and too little memory by itself. Libraries with the property SERRATE_READS_BYTES, which
  # take bytes of files and messages for values, have these checks too.
  target_compile_options(serrate_options INTERFACE
    $<$<NOT:$<BOOL:$<TARGET_PROPERTY:SERRATE_READS_BYTES>>>:-fno-sanitize=null,alignment,object-size,vptr>)
endif()

# serrate_simulate_cuda(TARGET): its .cu files as C++ for the simulated device. The compiler calls
# one of the simulator's functions before every load and store (it is linked without libtsan), and
# neither splits a load of 16 bytes nor moves one of a __shared__ variable across a barrier.
function(serrate_simulate_cuda target)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX SKIP_PRECOMPILE_HEADERS ON COMPILE_OPTIONS
    "-x;c++;-O1;-g;-fno-tree-sra;-fno-ipa-reference;-fsanitize=thread;--param=tsan-instrument-func-entry-exit=0;--param=tsan-distinguish-volatile=1;-Wno-unknown-pragmas")
endfunction()

# serrate_unite_cuda(VARIABLE SOURCES...): headers are most of what a small source takes to compile, so it sets the
# variable to sources that include those of a folder each. Their unnamed namespaces are one there.
function(serrate_unite_cuda variable)
  set(united)
  foreach(source ${ARGN})
    get_filename_component(folder ${source} DIRECTORY)
    string(MAKE_C_IDENTIFIER ${folder} name)
    string(APPEND of_${name} "#include \"${CMAKE_CURRENT_SOURCE_DIR}/${source}\"\n")
    list(APPEND united ${name})
  endforeach()
  list(REMOVE_DUPLICATES united)
  foreach(name ${united})
    file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${name}.cu CONTENT "${of_${name}}" @ONLY)
  endforeach()
  list(TRANSFORM united REPLACE "(.+)" "${CMAKE_CURRENT_BINARY_DIR}/\\1.cu")
  set(${variable} ${united} PARENT_SCOPE)
endfunction()

# serrate_share_ptx(TARGET SOURCES...): in a build for the default architectures, code of these sources for sm_90 is made
# of the PTX for sm_80, and not of PTX of its own. It is the same but for conversions of bfloat16, which are shifts.
function(serrate_share_ptx target)
  if(SERRATE_SIMT OR NOT "${CMAKE_CUDA_ARCHITECTURES}" STREQUAL "80;90a-real")
    return()
  endif()
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES OFF)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "\\.cu$")
  foreach(source ${sources})
    if(source IN_LIST ARGN)
      set(code "--generate-code=arch=compute_80,code=[compute_80,sm_80,sm_90]")
    else()
      set(code "--generate-code=arch=compute_80,code=[compute_80,sm_80];--generate-code=arch=compute_90a,code=[sm_90a]")
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${code}")
  endforeach()
endfunction()

# serrate_library(NAME SOURCES ... [CUDA ...] [SMALL_CUDA ...] [HOPPER_CUDA ...] [PUBLIC ...] [PRIVATE ...])
# A layer of the program, as the static library serrate_NAME (shared under AddressSanitizer) with the alias serrate::NAME.
# CUDA, SMALL_CUDA, HOPPER_CUDA: sources that are added when there is a CUDA compiler; the last ones have instructions
# that sm_80 has not, or algorithms of CUB that it tunes for sm_90.
function(serrate_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;CUDA;SMALL_CUDA;HOPPER_CUDA;PUBLIC;PRIVATE" ${ARGN})
  set(target serrate_${name})
  # In one unit, the specialisations for a device come before what uses them.
  set(cpu ${arg_SOURCES})
  list(FILTER cpu INCLUDE REGEX "cpu[/.]")
  list(REMOVE_ITEM arg_SOURCES "" ${cpu})
  set(type STATIC)
  if(SERRATE_SANITIZE MATCHES "address" AND NOT SERRATE_FUZZ)  # linking seventy tests with all of it takes minutes and gigabytes
    set(type SHARED)
  endif()
  add_library(${target} ${type} ${cpu})
  add_library(serrate::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  if(SERRATE_WITH_CUDA)
    serrate_unite_cuda(arg_SMALL_CUDA ${arg_SMALL_CUDA})
    target_sources(${target} PRIVATE ${arg_CUDA} ${arg_SMALL_CUDA} ${arg_HOPPER_CUDA})
    set_source_files_properties(${arg_CUDA} ${arg_SMALL_CUDA} ${arg_HOPPER_CUDA}
      PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    serrate_share_ptx(${target} ${arg_CUDA} ${arg_SMALL_CUDA})
    target_compile_definitions(${target} PRIVATE SERRATE_WITH_CUDA=1)
  endif()
  target_sources(${target} PRIVATE ${arg_SOURCES})
  if(SERRATE_SIMT)
    serrate_simulate_cuda(${target})
  endif()
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC ${arg_PUBLIC} PRIVATE $<BUILD_INTERFACE:serrate_options> ${arg_PRIVATE})
  set_property(GLOBAL APPEND PROPERTY SERRATE_LIBRARIES ${target})
endfunction()

# How a program of tests is compiled: at -O${serrate_test_level}, with GoogleTest's header compiled before, once for each
# level (tests/CMakeLists.txt).
function(serrate_compile_tests name)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O${serrate_test_level}>)
  target_precompile_headers(${name} REUSE_FROM serrate_gtest_at_O${serrate_test_level})
endfunction()

# What a test with these labels needs in a build with devices.
function(serrate_test_on_devices name labels)
  if(SERRATE_WITH_CUDA)
    target_compile_definitions(${name} PRIVATE SERRATE_WITH_CUDA=1)
  endif()
  if(SERRATE_SIMT AND "gpu" IN_LIST labels)
    serrate_simulate_cuda(${name})
    target_link_libraries(${name} PRIVATE serrate_simt_test_environment)
    add_dependencies(simt_tests ${name})
  endif()
endfunction()

# serrate_test(NAME [LONG] SOURCES ... LIBRARIES ... [LABELS ...] [TIMEOUT seconds] [ENVIRONMENT ...] [SCHEDULES n [ONCE filter]])
# One GoogleTest binary and one ctest entry. LONG ones are started first, lest one be left at the end. On the simulated
# device, NAME.seed2 to NAME.seedN run it under more schedules, without the tests that ONCE names.
function(serrate_test name)
  cmake_parse_arguments(arg "LONG" "TIMEOUT;SCHEDULES;ONCE" "SOURCES;LIBRARIES;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 900)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE serrate_options ${arg_LIBRARIES} GTest::gtest_main)
  serrate_compile_tests(${name})
  serrate_test_on_devices(${name} "${arg_LABELS}")
  if(SERRATE_SIMT AND "gpu" IN_LIST arg_LABELS)
    list(APPEND arg_ENVIRONMENT SERRATE_SIMT_DEVICES=2)  # the tests' is the second, not the current one
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "${arg_ENVIRONMENT}")
  set(entries ${name})
  if(SERRATE_SIMT AND arg_SCHEDULES)
    foreach(seed RANGE 2 ${arg_SCHEDULES})
      add_test(NAME ${name}.seed${seed} COMMAND ${name})
      set_tests_properties(${name}.seed${seed} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
        ENVIRONMENT "${arg_ENVIRONMENT};SERRATE_SIMT_SEED=${seed};GTEST_FILTER=*-${arg_ONCE}")
      list(APPEND entries ${name}.seed${seed})
    endforeach()
  endif()
  if(arg_LONG)
    set_tests_properties(${entries} PROPERTIES COST 1000)
  endif()
endfunction()

# serrate_mpi_test(NAME SOURCES ... LIBRARIES ... RANKS 1 2 3 [LABELS ...] [TIMEOUT seconds])
# One binary with the MPI main of tests/support, one ctest entry NAME.npN for each number of ranks.
function(serrate_mpi_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LIBRARIES;RANKS;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/support/mpi_main.cc)
  target_link_libraries(${name} PRIVATE serrate_options ${arg_LIBRARIES} GTest::gtest MPI::MPI_CXX)
  serrate_compile_tests(${name})
  serrate_test_on_devices(${name} "${arg_LABELS}")
  foreach(ranks ${arg_RANKS})
    add_test(NAME ${name}.np${ranks} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks}
      ${MPIEXEC_PREFLAGS} $<TARGET_FILE:${name}>)
    set_tests_properties(${name}.np${ranks} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "mpi;${arg_LABELS}" PROCESSORS ${ranks})
  endforeach()
endfunction()
