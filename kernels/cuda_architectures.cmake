# Which GPUs the CUDA kernels are compiled for. PATCHCUT_CUDA_ARCHITECTURES:
#   all     those of PATCHCUT_GPUS that nvcc knows, the newest as PTX too, for GPUs that are newer still
#   native  those of this machine; all where they cannot be told, or nvcc is older than they are
#   others  as CMAKE_CUDA_ARCHITECTURES has them, such as 86 or 87-real;90, less what nvcc does not know
# By default native where PATCHCUT_CUDA is AUTO, else all.

# Code for 12.0 runs on 12.1 too, and so on; 8.7 is Orin, 11.0 Thor.
set(PATCHCUT_GPUS 75 80 86 87 89 90 100 103 110 120)

# Capabilities that an nvcc compiles for, such as 75;80;90; nothing where it does not tell.
function(patchcut_ask_nvcc nvcc result)
  execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE told ERROR_QUIET)
  string(REGEX MATCHALL "compute_[0-9]+" known "${told}")
  list(TRANSFORM known REPLACE "compute_" "")
  set(${result} "${known}" PARENT_SCOPE)
endfunction()

# Those of PATCHCUT_GPUS that are known.
function(patchcut_choose_all known result)
  set(chosen)
  foreach(gpu IN LISTS PATCHCUT_GPUS)
    if(gpu IN_LIST known)
      list(APPEND chosen ${gpu})
    endif()
  endforeach()
  list(POP_BACK chosen newest)
  list(TRANSFORM chosen APPEND "-real")
  set(${result} ${chosen} ${newest} PARENT_SCOPE)
endfunction()

# What to compile for, of the `wanted`; `native` are this machine's capabilities, `known` those of nvcc.
function(patchcut_choose_architectures wanted native known result)
  list(REMOVE_DUPLICATES native)
  if(wanted STREQUAL "native")
    set(wanted "${native}")
    foreach(gpu IN LISTS native)
      if(NOT gpu IN_LIST known OR gpu LESS 75)
        set(wanted all)
      endif()
    endforeach()
  endif()
  if(wanted STREQUAL "all" OR wanted STREQUAL "")
    patchcut_choose_all("${known}" wanted)
  endif()
  set(chosen)
  foreach(architecture IN LISTS wanted)
    string(REGEX MATCH "^[0-9]+" gpu "${architecture}")
    if(gpu STREQUAL "" OR gpu IN_LIST known)
      list(APPEND chosen ${architecture})
    else()
      message(WARNING "patchcut: PATCHCUT_CUDA_ARCHITECTURES: this nvcc does not know ${architecture}, left out")
    endif()
  endforeach()
  if(NOT chosen)
    message(FATAL_ERROR "PATCHCUT_CUDA_ARCHITECTURES=${wanted}: this nvcc knows ${known}")
  endif()
  set(${result} "${chosen}" PARENT_SCOPE)
endfunction()
