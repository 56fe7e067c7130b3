# A Trivet node in containers: one image for every part of it, see docs/containers.md.
#
#   docker build -t trivet-node .
#   docker build -t trivet-compute --build-arg SERVICE=compute .
#
# SERVICE says what the image runs when nothing else is asked for. Behind a proxy or a mirror of
# packages, give the build their settings (--build-arg http_proxy=..., PIP_INDEX_URL=...), or a
# base image of your own under the tag debian:12 that has them.
FROM debian:12

# pip reads these itself; they stay out of the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST

WORKDIR /usr/src/trivet
COPY cli/src/trivet/host/packages.txt .
RUN apt-get update -q \
 && sed -e 's/#.*//' packages.txt | DEBIAN_FRONTEND=noninteractive \
    xargs apt-get install -y -q --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --user-group --no-create-home --home-dir /nonexistent trivet \
 && (id libvirt-qemu || useradd --system --user-group --no-create-home libvirt-qemu)

COPY requirements-node.lock .
RUN python3 -m venv /opt/trivet/venv \
 && /opt/trivet/venv/bin/pip install -q --no-cache-dir --require-hashes -r requirements-node.lock

COPY core core
COPY plugins plugins
COPY services services
COPY cli cli
RUN /opt/trivet/venv/bin/pip install -q --no-cache-dir --no-deps \
    ./core ./plugins ./services/* ./cli \
 && rm -rf /usr/src/trivet

ENV PATH=/opt/trivet/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    TRIVET_CONFIG=/etc/trivet/client.toml
WORKDIR /
ARG SERVICE=gateway
ENV SERVICE=$SERVICE
CMD ["sh", "-c", "exec python -m trivet.$SERVICE"]
