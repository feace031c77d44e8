#include "masks/relabel.h"

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "relabel";

}  // namespace

patchcut_status patchcut_relabel(const int32_t* labels, int64_t batch, int64_t height, int64_t width,
                                 const int32_t* table, int64_t count, int32_t* out,
                                 const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, height, width});
    require_sizes(kOp, {count});
    Arrays arrays(kOp);
    arrays.input("labels", labels, batch * height * width);
    arrays.input("table", table, batch * height * width == 0 ? 0 : count);
    arrays.output("out", out, batch * height * width, {"labels"});
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        relabel_cuda(labels, batch * height * width, table, count, out, queue);
      });
    }
    relabel_cpu(labels, batch * height, width, table, count, out);
  });
}
