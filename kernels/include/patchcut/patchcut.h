/* patchcut.h: every op behind plain C.
 *
 * Arrays are contiguous, in C order; the first dimension of most is a batch of independent items, 1 where
 * there is one. They lie where the context says: in host memory, or on one CUDA device. A function returns
 * PATCHCUT_OK, or a status whose text is patchcut_last_error(); what it was to write is then undefined. On
 * CUDA work is queued on the context's stream and nothing waits for it; values of arrays are not checked
 * there.
 *
 * Alignment: each array lies at a multiple of the size of its elements, each struct where C would put it.
 * Overlap: an array that is written shares no byte with another array of the call, but where it says below
 * that it may be an input itself: then both are the same array, from the first element to the last. What is
 * misaligned or overlaps is refused with PATCHCUT_INVALID_ARGUMENT, before anything is written.
 *
 * Numbers: an op gives finite results or says what overflows, for every finite input on the CPU; products and
 * sums are float32 but where it says more. Work is bounded by sizes and params, whatever the values are.
 * Where memory runs out, at whatever step, the status is PATCHCUT_OUT_OF_MEMORY, and later calls are as good
 * as ever.
 *
 * Stability: before version 1.0 a minor version may change functions and add fields at the end of structs, so
 * that a program is compiled with the header of the library that it loads: patchcut_version() tells. A patch
 * version changes neither. Fill structs by `= {0}` or their defaults and by name, so that new fields are 0.
 *
 * Functions may be called from several threads at once.
 */
#ifndef PATCHCUT_PATCHCUT_H
#define PATCHCUT_PATCHCUT_H

#include <stdint.h>

#if defined(__GNUC__)
#define PATCHCUT_API __attribute__((visibility("default")))
#else
#define PATCHCUT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum patchcut_status {
  PATCHCUT_OK = 0,
  PATCHCUT_INVALID_ARGUMENT = 1, /* a size, value or pointer that the op refuses */
  PATCHCUT_OUT_OF_MEMORY = 2,
  PATCHCUT_UNAVAILABLE = 3, /* CUDA asked of a build without it, or on a machine without a device */
  PATCHCUT_CUDA_ERROR = 4,  /* a call of the CUDA runtime failed */
  PATCHCUT_INTERNAL_ERROR = 5,
  PATCHCUT_INTERRUPTED = 6 /* the context's `interrupted` said so */
} patchcut_status;

typedef enum patchcut_device_type { PATCHCUT_CPU = 0, PATCHCUT_CUDA = 1 } patchcut_device_type;

typedef enum patchcut_dtype { PATCHCUT_FLOAT32 = 0, PATCHCUT_FLOAT16 = 1 } patchcut_dtype;

typedef enum patchcut_color {
  PATCHCUT_RGB = 0,
  PATCHCUT_BGR = 1,
  PATCHCUT_NV12 = 2 /* BT.601 of limited range, as cameras and decoders give it */
} patchcut_color;

/* Whether the op that runs should end; not 0 where it should. */
typedef int32_t (*patchcut_interrupt)(void* data);

/* Where an op runs, and what may end it. A null context means the CPU, to the end. */
typedef struct patchcut_context {
  int32_t device_type;     /* patchcut_device_type */
  int32_t device_index;    /* of the CUDA device */
  void* stream;            /* cudaStream_t; null is the legacy default stream */
  void* workspace;         /* device memory, 256-byte aligned; null: taken from the stream's memory pool */
  int64_t workspace_bytes; /* no meaning on the CPU */
  /* Asked on the thread that called the op, every 0.1 s while the op computes on the CPU; null: nothing is
   * asked. Where it gives anything but 0 the op returns PATCHCUT_INTERRUPTED soon after; calls that follow
   * are not touched by it. A signal handler need only set a flag that this function reads. */
  patchcut_interrupt interrupted;
  void* interrupt_data; /* what it is called with */
} patchcut_context;

/* The text of this thread's last status that was not PATCHCUT_OK; valid until the next one. Never null. */
PATCHCUT_API const char* patchcut_last_error(void);

/* "major.minor.patch" of this library. */
PATCHCUT_API const char* patchcut_version(void);

/* ---- threads and instruction sets of the CPU ---- */

/* Threads that one op may use, the calling one included: the environment's PATCHCUT_THREADS where it is set,
 * else patchcut_default_threads. Results do not depend on it. */
PATCHCUT_API patchcut_status patchcut_get_threads(int32_t* count);

/* 1 to 256. */
PATCHCUT_API patchcut_status patchcut_set_threads(int32_t count);

/* Physical cores that this process may run on, limited by its CPU quota, at least 1. Reads /proc and /sys
 * below `root`, "" for the machine's own. */
PATCHCUT_API patchcut_status patchcut_default_threads(const char* root, int32_t* count);

/* The name at `index` of the instruction sets that this build holds and this machine can run, slowest first:
 * "baseline", "avx2" and "avx512" on x86-64, "neon" on aarch64; null past the last. */
PATCHCUT_API const char* patchcut_available_isa(int32_t index);

/* The one in use: the environment's PATCHCUT_ISA where it is set, else the fastest. */
PATCHCUT_API patchcut_status patchcut_get_isa(const char** name);
PATCHCUT_API patchcut_status patchcut_set_isa(const char* name);

/* ---- preprocess: frames to normalised images ---- */

/* The frame fills [top, top + content_height) x [left, left + content_width) of the image; the rest is 0. */
typedef struct patchcut_preprocess_params {
  int64_t height; /* of the image */
  int64_t width;
  int64_t top;
  int64_t left;
  int64_t content_height;
  int64_t content_width;
  int32_t color;  /* patchcut_color of the frames */
  float scale[3]; /* R, G, B; image = value * scale + offset, with values of 0 to 255 */
  float offset[3];
} patchcut_preprocess_params;

/* frames [batch, height, width, 3], first pixel; strides of the four dimensions in bytes, of either sign.
 * PATCHCUT_NV12: frames is the luma [batch, height, width], of even sizes, whose pixels lie side by side; the
 * last stride leads from an item's luma to its chroma [height / 2, width / 2, 2], whose rows are as far
 * apart. images [batch, 3, params->height, params->width] of `dtype`, RGB. */
PATCHCUT_API patchcut_status patchcut_preprocess(const uint8_t* frames, int64_t batch, int64_t height,
                                                 int64_t width, const int64_t strides[4],
                                                 const patchcut_preprocess_params* params, void* images,
                                                 int32_t dtype, const patchcut_context* context);

/* ---- affinity: pairwise similarity of feature rows ---- */

typedef enum patchcut_affinity_kind { PATCHCUT_COSINE = 0, PATCHCUT_DOT = 1 } patchcut_affinity_kind;

typedef enum patchcut_affinity_mode {
  PATCHCUT_NCUT = 0, /* W = max(0, S) */
  PATCHCUT_CC = 1    /* W = S - max(S) / alpha */
} patchcut_affinity_mode;

typedef struct patchcut_affinity_params {
  int32_t kind;    /* patchcut_affinity_kind */
  int32_t mode;    /* patchcut_affinity_mode */
  float threshold; /* PATCHCUT_NCUT: entries at or below it become 0; at least 0 */
  float alpha;     /* PATCHCUT_CC: above 0 */
} patchcut_affinity_params;

#define PATCHCUT_AFFINITY_DEFAULTS {PATCHCUT_COSINE, PATCHCUT_NCUT, 0.0f, 3.0f}

/* features [batch, n, d] of `dtype`; affinity [batch, n, n] of `affinity_dtype`, exactly symmetric;
 * degrees [batch, n] float32, its row sums, or null. */
PATCHCUT_API patchcut_status patchcut_affinity(const void* features, int32_t dtype, int64_t batch, int64_t n,
                                               int64_t d, const patchcut_affinity_params* params,
                                               void* affinity, int32_t affinity_dtype, float* degrees,
                                               const patchcut_context* context);

/* ---- gcn_forward: a trained graph network ---- */

typedef struct patchcut_gcn_layer {
  const float* theta; /* [inputs, outputs] */
  const float* root;  /* [inputs, outputs], or null */
  const float* bias;  /* [outputs] */
  int64_t inputs;
  int64_t outputs;
} patchcut_gcn_layer;

typedef struct patchcut_linear_layer {
  const float* weight; /* [inputs, outputs] */
  const float* bias;   /* [outputs] */
  int64_t inputs;
  int64_t outputs;
} patchcut_linear_layer;

/* Widths chain: d, the graph layers, the linear layers, of which there is at least one; the last gives k. */
typedef struct patchcut_gcn_weights {
  int32_t normalize; /* not 0: divide each feature row by its L2 norm first */
  int64_t d;
  const float* shift; /* [d]; x = (features - shift) * scale */
  const float* scale; /* [d] */
  const patchcut_gcn_layer* layers;
  int64_t layer_count;
  const patchcut_linear_layer* mlp;
  int64_t mlp_count;
  float temperature;
} patchcut_gcn_weights;

/* A copy of weights as the kernel reads them; may be used by several threads at once. */
typedef struct patchcut_gcn patchcut_gcn;

/* For the context's device; on the CPU for the instruction set in use. The weights lie in host memory. */
PATCHCUT_API patchcut_status patchcut_gcn_create(const patchcut_gcn_weights* weights, patchcut_gcn** gcn,
                                                 const patchcut_context* context);
PATCHCUT_API void patchcut_gcn_destroy(patchcut_gcn* gcn);

/* The instruction set that it was made for; "cuda" on a GPU. */
PATCHCUT_API const char* patchcut_gcn_isa(const patchcut_gcn* gcn);

/* features [batch, n, d] of `dtype`; affinity [batch, n, n] of `affinity_dtype`, null where there are no
 * graph layers; degrees [batch, n], its row sums, or null; assignment [batch, n, k], rows on the simplex. */
PATCHCUT_API patchcut_status patchcut_gcn_forward(const void* features, int32_t dtype, const void* affinity,
                                                  int32_t affinity_dtype, const float* degrees, int64_t batch,
                                                  int64_t n, const patchcut_gcn* gcn, float* assignment,
                                                  const patchcut_context* context);

/* ---- gnn_fit: a graph network fitted to each item, DeepCut (arXiv 2212.05853) as published ---- */

typedef struct patchcut_gnn_fit_params {
  int32_t loss;         /* patchcut_affinity_mode: what the affinity is for */
  int64_t steps;        /* passes, 1 to 65,536; between two of them AdamW moves the weights */
  float learning_rate;  /* AdamW's, above 0; its other settings are torch's defaults */
  float dropout;        /* of the units, in [0, 1) */
  uint64_t seed;        /* of what drops, and of the weights where none are given */
  int64_t graph_width;  /* of the graph layer; 65,536 at most, as k and the other */
  int64_t hidden_width; /* of the hidden layer */
  float tolerance;      /* at least 0: the fit of an item ends after a pass whose loss is below the one before
                           by less than so much of its magnitude; 0: after all passes */
} patchcut_gnn_fit_params;

#define PATCHCUT_GNN_FIT_DEFAULTS {PATCHCUT_NCUT, 10, 1e-3f, 0.25f, 0, 64, 32, 0.0f}

/* Where the fit of every item starts; on the context's device. */
typedef struct patchcut_gnn_fit_weights {
  const float* theta;       /* [d, graph_width] */
  const float* theta_bias;  /* [graph_width] */
  const float* hidden;      /* [graph_width, hidden_width] */
  const float* hidden_bias; /* [hidden_width] */
  const float* logits;      /* [hidden_width, k] */
  const float* logits_bias; /* [k] */
} patchcut_gnn_fit_weights;

/* features [batch, n, d] of `dtype`; affinity [batch, n, n] of `affinity_dtype`, symmetric, with
 * PATCHCUT_NCUT at least 0; weights null: drawn from the seed. assignment [batch, n, k], rows on the simplex,
 * what the last pass says; losses [batch, steps], of each pass, and the last one's of those that were not
 * made; fitted, null or the weights of the last pass, [batch, (d + 1) graph_width + (graph_width + 1)
 * hidden_width + (hidden_width + 1) k], one array of patchcut_gnn_fit_weights after the other. */
PATCHCUT_API patchcut_status patchcut_gnn_fit(const void* features, int32_t dtype, const void* affinity,
                                              int32_t affinity_dtype, int64_t batch, int64_t n, int64_t d,
                                              int64_t k, const patchcut_gnn_fit_weights* weights,
                                              const patchcut_gnn_fit_params* params, float* assignment,
                                              float* losses, float* fitted, const patchcut_context* context);

/* ---- kmeans, kmeans_sums, correlation_cluster, assign, cosegment: features and affinities to clusters ----
 */

typedef enum patchcut_metric {
  PATCHCUT_EUCLIDEAN = 0,      /* squared distances */
  PATCHCUT_COSINE_DISTANCE = 1 /* 1 - cosine: half squared distances of unit rows, unit centroids */
} patchcut_metric;

typedef struct patchcut_kmeans_params {
  int32_t metric;     /* patchcut_metric */
  int64_t iterations; /* at most, at least 1; ends where no label changes */
  int64_t restarts;   /* at least 1; the run of the least inertia is kept */
  uint64_t seed;
} patchcut_kmeans_params;

#define PATCHCUT_KMEANS_DEFAULTS {PATCHCUT_EUCLIDEAN, 100, 1, 0}

/* iterations and restarts are 65,536 at most, on CUDA their product. Points of any magnitude are told apart;
 * on CUDA, differences whose squares leave float32, below 1e-22 and above 1e19, are as 0 and infinity. points
 * [batch, n, d] of `dtype`; k is 1 to n; init [batch, k, d], the first centroids, or null: greedy k-means++.
 * labels [batch, n]; centroids [batch, k, d]; inertia [batch], distances to the own centroid, added up. */
PATCHCUT_API patchcut_status patchcut_kmeans(const void* points, int32_t dtype, int64_t batch, int64_t n,
                                             int64_t d, int64_t k, const float* init,
                                             const patchcut_kmeans_params* params, int32_t* labels,
                                             float* centroids, float* inertia,
                                             const patchcut_context* context);

typedef struct patchcut_kmeans_sums_params {
  int32_t metric; /* patchcut_metric */
} patchcut_kmeans_sums_params;

#define PATCHCUT_KMEANS_SUMS_DEFAULTS {PATCHCUT_EUCLIDEAN}

/* One step of k-means over a chunk of a collection, which may be of any size: what several chunks give, added
 * up, is what one gives that has all of their points, up to rounding. No batch: points [n, d] of `dtype`, n
 * may be 0; centroids [k, d], at least one. labels [n], the nearest centroid, the first on a tie; distances
 * [n], to it; sums [k, d], of the points of each centroid, of unit rows for PATCHCUT_COSINE_DISTANCE, or
 * null; counts [k], of these points; inertia [1], distances added up. Distances must fit float32. */
PATCHCUT_API patchcut_status patchcut_kmeans_sums(const void* points, int32_t dtype, int64_t n, int64_t d,
                                                  const float* centroids, int64_t k,
                                                  const patchcut_kmeans_sums_params* params, int32_t* labels,
                                                  float* distances, double* sums, int64_t* counts,
                                                  double* inertia, const patchcut_context* context);

typedef struct patchcut_correlation_cluster_params {
  int64_t max_clusters; /* at least 1; time and memory grow with it */
  uint64_t seed;
} patchcut_correlation_cluster_params;

#define PATCHCUT_CORRELATION_CLUSTER_DEFAULTS {64, 0}

/* affinity [batch, n, n] of `dtype`, signed; the weight of a pair is the mean of its two entries, the
 * diagonal has no meaning. labels [batch, n], numbered by their first nodes; counts [batch], clusters found;
 * objectives [batch], the weights of pairs within clusters, added up, which is what is maximised; they, and
 * the sum of a pair's two entries, must fit float32. */
PATCHCUT_API patchcut_status patchcut_correlation_cluster(const void* affinity, int32_t dtype, int64_t batch,
                                                          int64_t n,
                                                          const patchcut_correlation_cluster_params* params,
                                                          int32_t* labels, int32_t* counts, float* objectives,
                                                          const patchcut_context* context);

/* features [batch, n, d] of `dtype`; prototypes [c, d]. labels [batch, n], the prototype of the largest
 * cosine; similarity [batch, n], that cosine; assignment [batch, n, c], softmax(cosine / temperature), or
 * null: temperature then has no meaning. */
PATCHCUT_API patchcut_status patchcut_assign(const void* features, int32_t dtype, int64_t batch, int64_t n,
                                             int64_t d, const float* prototypes, int64_t c, float temperature,
                                             int32_t* labels, float* similarity, float* assignment,
                                             const patchcut_context* context);

/* What k images have in common. features [n, d] of `dtype`, the patches of all images, one image after the
 * other; offsets [k + 1], where each image's patches start, from 0 to n, or null: n / k of each. weights [n],
 * 0 to 1, or null for ones; a patch of weight 0 does not count. scores [n], the mean over all images, its own
 * too, of the largest weight * cosine of a patch and one of the image, -1 of patches that do not count; seeds
 * [k], the patch of the best score, counted within the image, the first on a tie, -1 where none counts: such
 * an image is no image; embedding [d], the mean of the seeds' unit rows, of length 1. The affinity of all
 * patches is never stored; time grows with n^2 d, memory with n (d + k). */
PATCHCUT_API patchcut_status patchcut_cosegment(const void* features, int32_t dtype, int64_t n, int64_t d,
                                                int64_t k, const int64_t* offsets, const float* weights,
                                                float* scores, int32_t* seeds, float* embedding,
                                                const patchcut_context* context);

/* ---- ncut, bipartition: eigenvectors of a graph ---- */

/* W of the nodes' weights; S is the cosine of two feature rows. */
typedef enum patchcut_cut_graph {
  PATCHCUT_GRAPH_AFFINITY = 0,    /* the features are W, [n, n], symmetric: the CPU reads half of it */
  PATCHCUT_GRAPH_THRESHOLDED = 1, /* W = floor + (1 - floor) * (S where S > threshold, else 0) */
  PATCHCUT_GRAPH_BINARY = 2,      /* W = 1 where S > threshold, else floor */
  PATCHCUT_GRAPH_COSINE = 3       /* W = S + offset; never stored */
} patchcut_cut_graph;

typedef struct patchcut_ncut_params {
  int32_t graph;      /* patchcut_cut_graph */
  float threshold;    /* at least 0 */
  float floor;        /* at least 0, below 1 */
  float offset;       /* at least 0; 1 makes every weight non-negative */
  int64_t iterations; /* products of the graph with a block of about k vectors at most, at least 1 */
  uint64_t seed;      /* of the block that they start from */
  float tolerance;    /* of residuals, at least 0: ends where all k are as small, and what else was found is
                         apart from them; 0: never before the last iteration */
} patchcut_ncut_params;

#define PATCHCUT_NCUT_DEFAULTS {PATCHCUT_GRAPH_THRESHOLDED, 0.0f, 1e-5f, 1.0f, 10, 0, 0.0f}
/* As TokenCut (arXiv 2202.11539) has it. */
#define PATCHCUT_BIPARTITION_DEFAULTS {PATCHCUT_GRAPH_BINARY, 0.2f, 1e-5f, 1.0f, 10, 0, 0.0f}

/* The k smallest eigenvalues of (D - W) x = lambda D x, D the row sums of W, without that of the constant
 * vector. features [batch, n, d] of `dtype`; k is 1 to n - 1; start [batch, n, k], vectors to start from,
 * such as those of a graph that is much alike, or null: random; what it is changes how many products it
 * takes, not what is found. eigenvalues [batch, k], ascending; vectors [batch, n, k], x' D x = 1, the entry
 * of largest magnitude positive; residuals [batch, k], |D^-1/2 ((D - W) x - lambda D x)|; products [batch],
 * how many were made, or null. On CUDA iterations times k, or k + 1 with a start, rounded up to an even
 * number, is at most 2048; a node whose weights sum to less than 0 has no edges, and a start that is not
 * finite is none. */
PATCHCUT_API patchcut_status patchcut_ncut(const void* features, int32_t dtype, int64_t batch, int64_t n,
                                           int64_t d, int64_t k, const float* start,
                                           const patchcut_ncut_params* params, float* eigenvalues,
                                           float* vectors, float* residuals, int32_t* products,
                                           const patchcut_context* context);

/* Where the smallest eigenvalue is not a single one (all patches are alike, or there are more than two groups
 * without an edge between them) any vector of its space is right; which one is taken, and so the mask, then
 * depends on the instruction set and the device.
 * features [batch, grid_height * grid_width, d] of `dtype`; start [batch, grid_height * grid_width], or null,
 * as that of patchcut_ncut. seeds [batch], the patch whose entry in the first vector of patchcut_ncut has the
 * largest magnitude; masks [batch, grid_height, grid_width], 1 where the vector is on the seed's side of its
 * mean and, where `connected` is not 0, joined to the seed by neighbours in rows and columns; vectors [batch,
 * grid_height * grid_width], that vector, or null. */
PATCHCUT_API patchcut_status patchcut_bipartition(const void* features, int32_t dtype, int64_t batch,
                                                  int64_t grid_height, int64_t grid_width, int64_t d,
                                                  int32_t connected, const float* start,
                                                  const patchcut_ncut_params* params, uint8_t* masks,
                                                  int32_t* seeds, float* vectors,
                                                  const patchcut_context* context);

/* ---- upsample_argmax: assignments to label maps ---- */

/* assignment [batch, grid_height * grid_width, k], at most 2^125 in magnitude; labels [batch, height, width],
 * the column whose bilinearly interpolated value is largest; confidence [batch, height, width], that value,
 * or null. */
PATCHCUT_API patchcut_status patchcut_upsample_argmax(const float* assignment, int64_t batch,
                                                      int64_t grid_height, int64_t grid_width, int64_t k,
                                                      int64_t height, int64_t width, int32_t* labels,
                                                      float* confidence, const patchcut_context* context);

/* ---- connected_components, region_stats, relabel ---- */

/* label_map [batch, height, width], 0 is background; connectivity 4 or 8; components of fewer than min_area
 * pixels become background. kept_labels may be label_map itself too, where ids is not. ids [batch, height,
 * width], 0 and 1..count in scan order, may be label_map itself; kept_labels [batch, height, width],
 * label_map with 0 where ids is 0, or null; counts [batch]. */
PATCHCUT_API patchcut_status patchcut_connected_components(const int32_t* label_map, int64_t batch,
                                                           int64_t height, int64_t width,
                                                           int32_t connectivity, int64_t min_area,
                                                           int32_t* ids, int32_t* kept_labels,
                                                           int32_t* counts, const patchcut_context* context);

/* Of `count` regions of each item, as many as it has pixels or 65,536 at most; ids [batch, height, width] in
 * [0, count], 0 is no region. label_map and confidence [batch, height, width], or null where label,
 * mean_confidence are. area [batch, count]; boxes_xyxy [batch, count, 4], half-open, zeros for an id without
 * pixels; mean_confidence [batch, count]; label [batch, count], of the region's first pixel. */
PATCHCUT_API patchcut_status patchcut_region_stats(const int32_t* ids, const int32_t* label_map,
                                                   const float* confidence, int64_t batch, int64_t height,
                                                   int64_t width, int64_t count, int64_t* area,
                                                   float* boxes_xyxy, float* mean_confidence, int32_t* label,
                                                   const patchcut_context* context);

/* out = table[labels]; labels [batch, height, width] in [0, count); table [count]; out may be labels itself.
 */
PATCHCUT_API patchcut_status patchcut_relabel(const int32_t* labels, int64_t batch, int64_t height,
                                              int64_t width, const int32_t* table, int64_t count,
                                              int32_t* out, const patchcut_context* context);

/* ---- rle_encode, rle_decode: masks to the run lengths of COCO and back ---- */

/* Run lengths go down the columns, from left to right. The first run of an item is of zeros, and 0 where the
 * item begins with a one; the runs of item i are runs[offsets[i]] to runs[offsets[i + 1] - 1]. */

/* masks [batch, height, width], not 0 is inside; runs [capacity]; offsets [batch + 1], the first 0. Where the
 * last offset is above `capacity`, runs holds nothing of use: call again with that much room. */
PATCHCUT_API patchcut_status patchcut_rle_encode(const uint8_t* masks, int64_t batch, int64_t height,
                                                 int64_t width, int64_t capacity, uint32_t* runs,
                                                 int64_t* offsets, const patchcut_context* context);

/* The same for the pixels of each id from 1 to count, which is at most the pixels of an item or 65,536, in
 * one pass; ids [batch, height, width] in [0, count]; offsets [batch * count + 1]. On CUDA, pixels of other
 * ids are left out. */
PATCHCUT_API patchcut_status patchcut_rle_encode_ids(const int32_t* ids, int64_t batch, int64_t height,
                                                     int64_t width, int64_t count, int64_t capacity,
                                                     uint32_t* runs, int64_t* offsets,
                                                     const patchcut_context* context);

/* runs [capacity], offsets [batch + 1], as above, the runs of an item summing to height * width; masks
 * [batch, height, width], 0 or 1. On CUDA, pixels after the last run of an item are 0. */
PATCHCUT_API patchcut_status patchcut_rle_decode(const uint32_t* runs, const int64_t* offsets, int64_t batch,
                                                 int64_t height, int64_t width, int64_t capacity,
                                                 uint8_t* masks, const patchcut_context* context);

/* COCO's text of the runs of one item, all in host memory; text has room for 7 letters a run and gets no 0 at
 * its end; length is what was written. */
PATCHCUT_API patchcut_status patchcut_rle_write_text(const uint32_t* runs, int64_t count, char* text,
                                                     int64_t* length);

/* The runs of such a text; runs has room for `length`, count is what was written. */
PATCHCUT_API patchcut_status patchcut_rle_read_text(const char* text, int64_t length, uint32_t* runs,
                                                    int64_t* count);

/* ---- propagate: values of earlier frames carried to this one ---- */

typedef struct patchcut_propagate_params {
  int64_t radius;    /* of the window, in patches along rows and along columns; at least 0 */
  int64_t topk;      /* patches of the memory that a patch takes its values from; 1 to 64 */
  float temperature; /* of the softmax over their cosines; above 0 */
} patchcut_propagate_params;

/* As DINO (arXiv 2104.14294) has it. */
#define PATCHCUT_PROPAGATE_DEFAULTS {12, 5, 0.1f}

/* features [batch, grid_height * grid_width, d] of `dtype`; memory [batch, slots, grid_height * grid_width,
 * d] of `memory_dtype`, its first `frames` slots, at least 1, hold a frame each, in any order, and the others
 * are not looked at; values [batch, slots, grid_height * grid_width, c] in those slots. Of equal cosines the
 * first in memory is taken first. slots * grid_height * grid_width is at most 2^30. out [batch, grid_height *
 * grid_width, c], each row a convex combination of rows of values. */
PATCHCUT_API patchcut_status patchcut_propagate(const void* features, int32_t dtype, const void* memory,
                                                int32_t memory_dtype, const float* values, int64_t batch,
                                                int64_t slots, int64_t frames, int64_t grid_height,
                                                int64_t grid_width, int64_t d, int64_t c,
                                                const patchcut_propagate_params* params, float* out,
                                                const patchcut_context* context);

/* ---- guided_refine: borders of maps moved to the edges of a frame ---- */

typedef struct patchcut_guided_refine_params {
  int64_t radius; /* of the window, in pixels; 1 to 65,536 */
  float eps;      /* of squared intensity, where white is 1; at least 1e-9 */
  int64_t
      subsample; /* 1: the guided filter; to 65,536: the fast one, on each subsample-th pixel of an axis */
} patchcut_guided_refine_params;

#define PATCHCUT_GUIDED_REFINE_DEFAULTS {8, 1e-3f, 1}

/* frames [batch, height, width, 3]; maps, at most 1e12 in magnitude, and out [batch, k, height, width]. */
PATCHCUT_API patchcut_status patchcut_guided_refine(const uint8_t* frames, const float* maps, int64_t batch,
                                                    int64_t k, int64_t height, int64_t width,
                                                    const patchcut_guided_refine_params* params, float* out,
                                                    const patchcut_context* context);

/* label_maps and out [batch, height, width]: at each pixel the label whose filtered
 * indicator is largest. On CUDA labels are in [0, count), count is at most 65,536, and others are as count -
 * 1; in host memory they may be any, whatever count is. */
PATCHCUT_API patchcut_status patchcut_guided_refine_labels(const uint8_t* frames, const int32_t* label_maps,
                                                           int64_t batch, int64_t height, int64_t width,
                                                           int64_t count,
                                                           const patchcut_guided_refine_params* params,
                                                           int32_t* out, const patchcut_context* context);

/* ---- bilateral_solver: a map that is smooth but at the edges of a frame ---- */

typedef struct patchcut_bilateral_solver_params {
  float sigma_spatial; /* size of a cell of the grid in pixels; at least 1 */
  float sigma_luma;    /* in levels of 256; at least 1 */
  float sigma_chroma;  /* in levels of 256; at least 1 */
  float smoothness;    /* weight of smoothness against confidence, the paper's lambda; at least 0 */
  int64_t iterations;  /* of conjugate gradients, 0 to 65,536; fewer where nothing is left to gain */
  int64_t bistochastic_iterations; /* 0 to 65,536 */
  int32_t color;                   /* PATCHCUT_RGB or PATCHCUT_BGR */
} patchcut_bilateral_solver_params;

#define PATCHCUT_BILATERAL_SOLVER_DEFAULTS {24.0f, 4.0f, 4.0f, 256.0f, 25, 10, PATCHCUT_BGR}

/* frames [batch, height, width, 3]; maps, confidence (at least 0) and out [batch, height, width]; out may be
 * either of the others itself. */
PATCHCUT_API patchcut_status patchcut_bilateral_solver(const uint8_t* frames, const float* maps,
                                                       const float* confidence, int64_t batch, int64_t height,
                                                       int64_t width,
                                                       const patchcut_bilateral_solver_params* params,
                                                       float* out, const patchcut_context* context);

#ifdef __cplusplus
}
#endif

#endif
