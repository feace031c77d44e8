/* cuda.h: device memory, streams, events and graphs, for programs that bring no CUDA runtime of their own.
 *
 * Handles are those of CUDA: a cudaStream_t made elsewhere may be given, and those made here may be used
 * elsewhere. A library that was built without CUDA exports none of this but patchcut_cuda_device_count.
 */
#ifndef PATCHCUT_CUDA_H
#define PATCHCUT_CUDA_H

#include <stdint.h>

#include "patchcut/patchcut.h"

#ifdef __cplusplus
extern "C" {
#endif

/* PATCHCUT_UNAVAILABLE, and 0, where there is no device, no driver or no CUDA in this build; the text of
 * patchcut_last_error() says which. */
PATCHCUT_API patchcut_status patchcut_cuda_device_count(int32_t* count);

/* Cut to `bytes`, the ending 0 included. */
PATCHCUT_API patchcut_status patchcut_cuda_device_name(int32_t device, char* name, int64_t bytes);

/* 10 * major + minor. */
PATCHCUT_API patchcut_status patchcut_cuda_compute_capability(int32_t device, int32_t* capability);

/* The device that memory lies on; -1 for host memory. */
PATCHCUT_API patchcut_status patchcut_cuda_device_of(const void* memory, int32_t* device);

/* Bytes of workspace that this thread's last op on CUDA took, or that it found too few: for what is given
 * later, such as in a capture. 0 before the first. */
PATCHCUT_API patchcut_status patchcut_cuda_last_workspace(int64_t* bytes);

/* 256-byte aligned, in the order of the stream. */
PATCHCUT_API patchcut_status patchcut_cuda_allocate(int32_t device, int64_t bytes, void* stream,
                                                    void** memory);
PATCHCUT_API patchcut_status patchcut_cuda_free(int32_t device, void* memory, void* stream);

/* Host memory that a graph may copy from and to, and that copies do not wait for; any stream may use it. */
PATCHCUT_API patchcut_status patchcut_cuda_host_allocate(int32_t device, int64_t bytes, void** memory);
PATCHCUT_API patchcut_status patchcut_cuda_host_free(int32_t device, void* memory);

/* Between any two of host memory and devices. */
PATCHCUT_API patchcut_status patchcut_cuda_copy(int32_t device, void* to, const void* from, int64_t bytes,
                                                void* stream);

/* Streams do not wait for the legacy default stream. */
PATCHCUT_API patchcut_status patchcut_cuda_stream_create(int32_t device, void** stream);
PATCHCUT_API patchcut_status patchcut_cuda_stream_destroy(int32_t device, void* stream);
PATCHCUT_API patchcut_status patchcut_cuda_stream_synchronize(int32_t device, void* stream);

/* Work given to `stream` from now on waits for what `before` has been given until now; nothing where one
 * of them is being captured, since a graph waits for nothing outside itself. */
PATCHCUT_API patchcut_status patchcut_cuda_stream_wait(int32_t device, void* stream, void* before);

PATCHCUT_API patchcut_status patchcut_cuda_event_create(int32_t device, void** event);
PATCHCUT_API patchcut_status patchcut_cuda_event_destroy(int32_t device, void* event);
PATCHCUT_API patchcut_status patchcut_cuda_event_record(int32_t device, void* event, void* stream);
PATCHCUT_API patchcut_status patchcut_cuda_event_synchronize(int32_t device, void* event);
PATCHCUT_API patchcut_status patchcut_cuda_event_elapsed_ms(int32_t device, void* begin, void* end,
                                                            float* ms);

/* What the stream is given between begin and end is not done but kept, as a graph that can be launched. */
PATCHCUT_API patchcut_status patchcut_cuda_capture_begin(int32_t device, void* stream);
PATCHCUT_API patchcut_status patchcut_cuda_capture_end(int32_t device, void* stream, void** graph);
PATCHCUT_API patchcut_status patchcut_cuda_graph_launch(int32_t device, void* graph, void* stream);

/* From begin to end, workspaces of ops on `stream`, and patchcut_cuda_allocate on it, come from memory that
 * belongs to `memory`, so that ops which are given none can be captured. A graph that was captured meanwhile
 * uses it: it is destroyed after the graph. patchcut_cuda_free gives back what the graph may take once more.
 */
PATCHCUT_API patchcut_status patchcut_cuda_graph_memory_begin(int32_t device, void* stream, void** memory);
PATCHCUT_API patchcut_status patchcut_cuda_graph_memory_end(int32_t device, void* memory);
PATCHCUT_API patchcut_status patchcut_cuda_graph_memory_destroy(int32_t device, void* memory);
PATCHCUT_API patchcut_status patchcut_cuda_graph_destroy(int32_t device, void* graph);

#ifdef __cplusplus
}
#endif

#endif
