# The CUDA half of libpatchcut. PATCHCUT_CUDA:
#   AUTO  with CUDA where this machine has a driver for it and an nvcc that works, on the PATH or named by
#         CUDACXX, CUDA_HOME or CUDA_PATH: all architectures take minutes, which nobody waits for without a GPU
#   ON    with a driver or without, nvcc also looked for in /usr/local/cuda, and an error where there is none
#   OFF   without
#   HOST  for tests: the kernels compiled for the host, threads of a block as fibers (tests/host_cuda)

function(patchcut_find_driver result)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "import ctypes; ctypes.CDLL('libcuda.so.1')"
    RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET)
  if(status EQUAL 0)
    set(${result} ON PARENT_SCOPE)
  else()
    set(${result} OFF PARENT_SCOPE)
  endif()
endfunction()

function(patchcut_find_nvcc)
  if(DEFINED CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX})
    return()
  endif()
  set(hints "$ENV{CUDA_HOME}/bin" "$ENV{CUDA_PATH}/bin")
  if(PATCHCUT_CUDA STREQUAL "ON")
    list(APPEND hints "$ENV{CUDAToolkit_ROOT}/bin" "/usr/local/cuda/bin")
  endif()
  find_program(PATCHCUT_NVCC nvcc HINTS ${hints})
  if(PATCHCUT_NVCC)
    set(ENV{CUDACXX} "${PATCHCUT_NVCC}")  # check_language trusts a compiler that it is told of otherwise
  endif()
endfunction()

# Sets CMAKE_CUDA_COMPILER to an nvcc that compiles with this C++ compiler, or to nothing.
macro(patchcut_check_cuda)
  patchcut_find_nvcc()
  if(NOT DEFINED CMAKE_CUDA_HOST_COMPILER AND NOT DEFINED ENV{CUDAHOSTCXX})
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "${PATCHCUT_CUDA_ARCHITECTURES}")
  endif()
  include(CheckLanguage)
  check_language(CUDA)
endmacro()

function(patchcut_add_cuda target)
  target_sources(${target} PRIVATE ${patchcut_cuda_sources})
  target_compile_definitions(${target} PRIVATE PATCHCUT_WITH_CUDA=1)
  target_include_directories(${target} PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  set_target_properties(${target} PROPERTIES
    CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
    CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
    LINKER_LANGUAGE CXX)
  # Unused parameters of kernels are wanted nowhere; what is not used in one of several architectures is.
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall$<$<BOOL:${PATCHCUT_WERROR}>: -Werror=all-warnings>>)
endfunction()

function(patchcut_add_host_cuda target)
  set(host_cuda "${PROJECT_SOURCE_DIR}/tests/host_cuda")
  if(NOT EXISTS "${host_cuda}/block.cpp")
    message(FATAL_ERROR "PATCHCUT_CUDA=HOST: needs tests/host_cuda of a checkout, ${host_cuda} has none")
  endif()
  target_sources(${target} PRIVATE ${patchcut_cuda_sources}
    "${host_cuda}/block.cpp" "${host_cuda}/fiber.cpp" "${host_cuda}/runtime.cpp")
  set(device_sources ${patchcut_cuda_sources})
  list(FILTER device_sources INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${device_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++;-Wno-unknown-pragmas")
  target_compile_definitions(${target} PRIVATE PATCHCUT_WITH_CUDA=1 PATCHCUT_HOST_CUDA=1)
  target_include_directories(${target} PRIVATE "${host_cuda}/include")
endfunction()
