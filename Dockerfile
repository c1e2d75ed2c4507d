# archsmith in a container: the versions of requirements.lock, nothing to develop with, no port, no root.
#
#   docker build -t archsmith .                                    children are trained on CPUs
#   docker build -t archsmith:cuda --build-arg DEVICE=cuda .       or on NVIDIA's GPUs; some 6 GB
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" archsmith auto digits
#
# The same image is the driver, Ray's head and Ray's workers: docs/guides/running-elsewhere.md.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:${PYTHON}-slim-bookworm
# From what changes seldom to what changes daily: a change of archsmith's own code makes a last layer of some megabytes.
# g++: recurrent cells and augmentation compile a small native library at first use, and are slower without.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 --gid 0 archsmith \
 && install --directory --owner archsmith --group 0 --mode 775 /work

ARG DEVICE=cpu
ARG TORCH=2.13.0
# PyPI's torch brings CUDA with it; the CPU build is a tenth of the size and sorts above it.
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir --no-deps --extra-index-url https://download.pytorch.org/whl/cpu "torch==$TORCH" ;; \
      cuda) pip install --no-cache-dir "torch==$TORCH" ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac

# What pyproject.toml asks for, and nothing else that the lock holds: a constraint installs nothing by itself.
COPY pyproject.toml requirements.lock /tmp/needs/
RUN cd /tmp/needs \
 && python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['ray'], *extras['postgres'], *extras['remote'], *extras['s3'], sep='\n')" > needs.txt \
 && pip install --no-cache-dir --requirement needs.txt --constraint requirements.lock

COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl

# USER: Ray and torch ask for a name, and any user id may run this. Ray: nothing is told to anybody.
ENV USER=archsmith PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 1000
WORKDIR /work
ENTRYPOINT ["archsmith"]
CMD ["--help"]
