# The Python module _C, which is libpatchcut's Python face.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module ${SKBUILD_SABI_COMPONENT})
execute_process(
  COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
  OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE nanobind_ROOT COMMAND_ERROR_IS_FATAL ANY)

# The interpreter here is not the one that will load the module, but of its version: only the architecture in the
# module's name differs, and the headers say the same on every 64-bit Linux.
if(CMAKE_CROSSCOMPILING)
  foreach(soabi IN ITEMS SKBUILD_SOABI Python_SOABI)
    if(DEFINED ${soabi})
      string(REPLACE "-${CMAKE_HOST_SYSTEM_PROCESSOR}-" "-${CMAKE_SYSTEM_PROCESSOR}-" ${soabi} "${${soabi}}")
    endif()
  endforeach()
endif()
find_package(nanobind CONFIG REQUIRED)

nanobind_add_module(_C STABLE_ABI NB_STATIC
  bindings/clusters.cpp bindings/cuda.cpp bindings/cuts.cpp bindings/fit.cpp bindings/images.cpp
  bindings/masks.cpp bindings/module.cpp bindings/nodes.cpp bindings/refine.cpp bindings/video.cpp)
target_link_libraries(_C PRIVATE patchcut patchcut_flags)
set_target_properties(_C PROPERTIES INSTALL_RPATH "$ORIGIN")
patchcut_make_portable(_C)
target_compile_definitions(_C PRIVATE $<$<BOOL:${PATCHCUT_WITH_CUDA}>:PATCHCUT_WITH_CUDA=1>)
install(TARGETS _C LIBRARY DESTINATION patchcut_kernels)
