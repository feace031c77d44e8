# `patchcut serve` on an NVIDIA GPU of a PC or server, of a checkout:
#   docker build -f docs/containers/cuda.Dockerfile -t patchcut:cuda .
ARG CUDA=12.9.1
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build
# Packages of the image's own release: their versions are the release's.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && python3 -m venv /opt/patchcut
ENV PATH=/opt/patchcut/bin:$PATH
COPY . /source
# patchcut itself comes from the checkout alone; an index has the rest, CUDA's libraries for ONNX Runtime among it.
# hadolint ignore=DL3013
RUN pip wheel --no-cache-dir --no-deps -w /wheels \
    -C cmake.define.PATCHCUT_CUDA=ON -C cmake.define.PATCHCUT_CUDA_ARCHITECTURES=all /source \
  && pip install --no-cache-dir --no-index --no-deps --find-links /wheels patchcut \
  && pip install --no-cache-dir --only-binary :all: 'patchcut[gpu,server]'

FROM nvidia/cuda:${CUDA}-base-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends python3 \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin patchcut
COPY --from=build /opt/patchcut /opt/patchcut
# Nothing is written: the root may be read-only.
ENV PATH=/opt/patchcut/bin:$PATH PATCHCUT_CACHE=off PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["patchcut"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--device", "cuda"]
