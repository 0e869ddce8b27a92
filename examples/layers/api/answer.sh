. /lib/log.sh
log "42"
