# Everybody around the gateway: routers, hosts, hypervisor. One image, as Debian ships the programs.
FROM debian:bookworm-slim
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      bird2 gobgpd frr iproute2 iputils-ping >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
