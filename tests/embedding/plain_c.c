/* The headers are C11: the affinity of two rows, and the text of an error. */
#include <patchcut/cuda.h>
#include <patchcut/patchcut.h>
#include <stdio.h>

int main(void) {
  const float features[2][3] = {{3.0f, 0.0f, 4.0f}, {0.0f, 1.0f, 0.0f}};
  const patchcut_affinity_params params = PATCHCUT_AFFINITY_DEFAULTS;
  float affinity[2][2];
  patchcut_status status =
      patchcut_affinity(features, PATCHCUT_FLOAT32, 1, 2, 3, &params, affinity, PATCHCUT_FLOAT32, NULL, NULL);
  if (status != PATCHCUT_OK) {
    fprintf(stderr, "%s\n", patchcut_last_error());
    return 1;
  }
  printf("%g %g %g %g\n", affinity[0][0], affinity[0][1], affinity[1][0], affinity[1][1]);
  status = patchcut_affinity(features, PATCHCUT_FLOAT32, 1, -2, 3, &params, affinity, PATCHCUT_FLOAT32, NULL,
                             NULL);
  printf("%d %s\n", (int)status, patchcut_last_error());
  int32_t devices = -1;
  status = patchcut_cuda_device_count(&devices);
  printf("%d devices: %s\n", (int)devices, status == PATCHCUT_OK ? "" : patchcut_last_error());
  printf("%s\n", patchcut_version());
  return 0;
}
