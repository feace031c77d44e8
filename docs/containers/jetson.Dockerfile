# `patchcut serve` on a Jetson's GPU, of a checkout. JetPack 6, for Orin:
#   docker build -f docs/containers/jetson.Dockerfile -t patchcut:jetson .
# JetPack 7, for Orin and Thor:
#   docker build -f docs/containers/jetson.Dockerfile -t patchcut:jetson \
#     --build-arg BASE=nvcr.io/nvidia/tensorrt:25.08-py3 --build-arg 'ARCHITECTURES=87;110' .
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
ARG ARCHITECTURES=87
# Packages of the image's own release: their versions are the release's.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin patchcut \
  && python3 -m venv --system-site-packages /opt/patchcut
ENV PATH=/opt/patchcut/bin:/usr/local/cuda/bin:$PATH
COPY . /source
# patchcut itself comes from the checkout alone, TensorRT from the image; an index has the rest.
# hadolint ignore=DL3013
RUN pip wheel --no-cache-dir --no-deps -w /wheels \
    -C cmake.define.PATCHCUT_CUDA=ON -C "cmake.define.PATCHCUT_CUDA_ARCHITECTURES=${ARCHITECTURES}" /source \
  && pip install --no-cache-dir --no-index --no-deps --find-links /wheels patchcut \
  && pip install --no-cache-dir --only-binary :all: 'patchcut[cpu,server]' \
  && install -d -o 10001 /cache
# Engines are built for the board at the first start, and kept in a volume.
ENV PATCHCUT_CACHE=/cache PYTHONDONTWRITEBYTECODE=1
VOLUME /cache
USER 10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["patchcut"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--engine", "tensorrt", "--device", "cuda"]
