# `patchcut serve` on a CPU, x86-64 or ARM, of the wheels in a folder:
#   docker build -f docs/containers/cpu.Dockerfile -t patchcut:cpu dist
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS build
RUN python -m venv /opt/patchcut
ENV PATH=/opt/patchcut/bin:$PATH
COPY patchcut-*.whl /wheels/
# patchcut itself comes from the folder alone, in the version that is there; an index has the rest.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --no-index --no-deps --find-links /wheels patchcut \
  && pip install --no-cache-dir --only-binary :all: 'patchcut[cpu,server]'

FROM python:${PYTHON}-slim-bookworm
RUN useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin patchcut
COPY --from=build /opt/patchcut /opt/patchcut
# Nothing is written: the root may be read-only.
ENV PATH=/opt/patchcut/bin:$PATH PATCHCUT_CACHE=off PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["patchcut"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
