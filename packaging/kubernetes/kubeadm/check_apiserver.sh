#!/bin/sh
# For `vrrp_script` of keepalived, in the place of the guide's /etc/keepalived/check_apiserver.sh: fails, so that
# the address moves to another host, when rlb does not run here or reaches no API server.
exec curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:8404/readyz
