package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Webhooks go to no address that serves metadata, whatever name it bears.
func TestNoticesStayAway(t *testing.T) {
	here := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer here.Close()
	for address, good := range map[string]bool{
		here.URL: true, "http://169.254.169.254/latest/": false, "http://[fe80::1]/": false, "http://[fd00:ec2::254]/": false, "http://[::ffff:169.254.169.254]/": false,
		"http://100.100.100.200/": false, "http://0.0.0.0:80/": false, "http://[64:ff9b::a9fe:a9fe]/": false,
	} {
		resp, err := noticeClient().Post(address, "application/json", strings.NewReader("{}"))
		if err == nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "refused by slipway's network policy") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
