# The CUDA half of libpatchcut. PATCHCUT_CUDA:
#   AUTO  with CUDA where this machine has a driver for it and an nvcc that works, on the PATH or named by
#         CUDACXX, CUDA_HOME or CUDA_PATH: that takes minutes, for which nobody waits without a GPU
#   ON    with a driver or without, nvcc also looked for in /usr/local/cuda, and an error where there is none
#   OFF   without
#   HOST  for tests: the kernels compiled for the host, threads of a block as fibers (tests/host_cuda)

include("${CMAKE_CURRENT_LIST_DIR}/cuda_architectures.cmake")

# Whether there is a driver here, and the capabilities of its GPUs as far as it tells.
function(patchcut_find_driver found native)
  set(status 1)
  set(gpus)
  if(NOT CMAKE_CROSSCOMPILING)
    unset(patchcut_driver_status CACHE)
    try_run(patchcut_driver_status patchcut_driver_compiled
      "${CMAKE_CURRENT_BINARY_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/gpus_here.cpp"
      LINK_LIBRARIES ${CMAKE_DL_LIBS} RUN_OUTPUT_VARIABLE gpus)
    set(status "${patchcut_driver_status}")
  endif()
  if(status EQUAL 0)
    set(${found} ON PARENT_SCOPE)
  else()
    set(${found} OFF PARENT_SCOPE)
  endif()
  string(REGEX MATCHALL "[0-9]+" gpus "${gpus}")
  set(${native} "${gpus}" PARENT_SCOPE)
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

# Sets CMAKE_CUDA_ARCHITECTURES, where it is not set, to what the nvcc that is found compiles for; `native` are the
# capabilities of this machine's GPUs. To nothing where nvcc does not tell: CMake then asks it for its default.
function(patchcut_set_architectures native)
  set(nvcc "$ENV{CUDACXX}")
  if(CMAKE_CUDA_COMPILER)
    set(nvcc "${CMAKE_CUDA_COMPILER}")
  endif()
  set(known)
  if(nvcc)
    patchcut_ask_nvcc("${nvcc}" known)
  endif()
  if(DEFINED CMAKE_CUDA_ARCHITECTURES OR NOT known)
    return()
  endif()
  set(wanted "${PATCHCUT_CUDA_ARCHITECTURES}")
  if(wanted STREQUAL "" AND PATCHCUT_CUDA STREQUAL "AUTO")
    set(wanted native)
  endif()
  patchcut_choose_architectures("${wanted}" "${native}" "${known}" chosen)
  set(CMAKE_CUDA_ARCHITECTURES "${chosen}" PARENT_SCOPE)
endfunction()

# Sets CMAKE_CUDA_COMPILER to an nvcc that compiles with this C++ compiler, or to nothing.
macro(patchcut_check_cuda native)
  patchcut_find_nvcc()
  if(NOT DEFINED CMAKE_CUDA_HOST_COMPILER AND NOT DEFINED ENV{CUDAHOSTCXX})
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
  endif()
  patchcut_set_architectures("${native}")
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
