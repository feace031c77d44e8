#include "cpu/simd.h"
#include "cpu/simd_functions.h"
#include "cpu/simd_vector.h"
#include "refine/guided_simd.h"
#include "refine/solver_simd.h"

#define PATCHCUT_QUOTE(name) #name
#define PATCHCUT_NAME(name) PATCHCUT_QUOTE(name)

namespace patchcut::PATCHCUT_ISA {

extern const RefineTable refine_table;
extern const SolverTable solver_table;
extern const SimdTable table;
const SimdTable table = {
    PATCHCUT_NAME(PATCHCUT_ISA),
    kPanel,
    &refine_table,
    &solver_table,
    gemm_panel,
    pack_transposed,
    finish_affinity_tile,
    all_finite,
    half_to_float,
    float_to_half,
    sum,
    sum_squares,
    scale_row,
    offset_row,
    standardize_row,
    gcn_row,
    bias_row,
    softmax_rows,
    kRowGroup,
    dot_rows,
    add_rows,
    dot_add_rows,
    blend_bytes,
    resize_row,
    argmax_span,
    multiply_by_rows,
    keep_positive,
    elu_row,
    elu_slope_row,
    multiply_row,
    dropout_row,
    adamw_row,
    squared_distances,
    lower_minima,
    lower_row,
    move_row,
    average_rows,
    sum_absolute,
    round_row,
    move_weights,
    best_move,
};

}  // namespace patchcut::PATCHCUT_ISA
