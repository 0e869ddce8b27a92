. /lib/log.sh
log "<p>welcome</p>"
