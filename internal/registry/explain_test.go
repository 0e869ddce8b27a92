package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTLSAndPlainHTTP(t *testing.T) {
	s := store{}
	desc := s.image(t, "amd64", "one")
	secure := httptest.NewUnstartedServer(behind(nil))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	host := strings.TrimPrefix(secure.URL, "https://")

	_, err := pushTo(t.Context(), s.blobs, desc, host+"/app", fast())
	wantError(t, err, "install the CA", "ca: [FILE]")
	o := fast()
	o.CA = []string{filepath.Join(t.TempDir(), "ca.pem")}
	_, err = pushTo(t.Context(), s.blobs, desc, host+"/app", o)
	wantError(t, err, "ca.pem")
	must(t, os.WriteFile(o.CA[0], []byte("none"), 0o600))
	_, err = pushTo(t.Context(), s.blobs, desc, host+"/app", o)
	wantError(t, err, "ca.pem", "no certificate")
	must(t, os.WriteFile(o.CA[0], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	if _, err := pushTo(t.Context(), s.blobs, desc, host+"/app", o); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	o = fast()
	o.Insecure = true
	if _, err := pushTo(t.Context(), s.blobs, desc, host+"/app", o); err != nil {
		t.Errorf("insecure: %v", err)
	}

	plainServer := httptest.NewUnstartedServer(behind(nil))
	plainServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	plainServer.Start()
	defer plainServer.Close()
	_, err = http.Get(strings.Replace(plainServer.URL, "http://", "https://", 1)) //nolint:bodyclose // it fails
	if got := nextStep(err, "example.com"); !strings.Contains(got, "answers plain HTTP") {
		t.Errorf("TLS to a plain server: %v: %q", err, got)
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	_, err = resolve(t.Context(), strings.TrimPrefix(closed.URL, "http://")+"/app:v1", fast())
	wantError(t, err, "nothing listens there")
}

// go-containerregistry would send passwords unencrypted to private addresses.
func TestPlainHTTPStaysOnTheMachine(t *testing.T) {
	for url, want := range map[string]bool{
		"http://127.0.0.1:5000/v2/": true, "http://localhost:5000/v2/": true, "http://[::1]:5000/v2/": true,
		"http://10.0.0.1:5000/v2/": false, "http://192.168.1.1/v2/": false, "http://registry.local/v2/": false,
	} {
		asked := errors.New("asked")
		s := &httpsOnly{inner: roundTrip(func(*http.Request) (*http.Response, error) { return nil, asked })}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader("x"))
		must(t, err)
		if _, err := s.RoundTrip(r); errors.Is(err, asked) != want { //nolint:bodyclose // it always fails
			t.Errorf("%s: %v, want asked %v", url, err, want)
		}
		s.insecure = true
		if _, err := s.RoundTrip(r); !errors.Is(err, asked) { //nolint:bodyclose // it always fails
			t.Errorf("%s insecure: %v", url, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNextStep(t *testing.T) {
	for want, err := range map[string]error{
		"no such host: check the spelling of example.com": &net.DNSError{IsNotFound: true},
		"DNS does not answer":                             &net.DNSError{IsTimeout: true, IsTemporary: true},
		"no route":                                        &net.OpError{Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)},
		"does not answer: check":                          &net.OpError{Err: os.ErrDeadlineExceeded},
	} {
		if got := nextStep(err, "example.com"); !strings.Contains(got, want) {
			t.Errorf("%v: %q lacks %q", err, got, want)
		}
	}
}

func TestCertificateStep(t *testing.T) {
	for want, err := range map[string]error{
		"install the CA":                  x509.UnknownAuthorityError{},
		"the name its certificate is for": x509.HostnameError{Certificate: &x509.Certificate{}},
		"renew the certificate":           &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}},
	} {
		if got := certificateStep(err, "example.com"); !strings.Contains(got, want) {
			t.Errorf("%v: %q lacks %q", err, got, want)
		}
	}
}

func TestTemporary(t *testing.T) {
	for _, err := range []error{nil, context.Canceled, errPlainHTTP, &net.DNSError{IsNotFound: true}, &net.OpError{Err: syscall.ECONNREFUSED}, errors.New("x")} {
		if temporary(err) {
			t.Errorf("%v would be tried again", err)
		}
	}
	for _, err := range []error{syscall.ECONNRESET, &net.OpError{Err: os.ErrDeadlineExceeded}, &net.DNSError{IsTemporary: true}} {
		if !temporary(err) {
			t.Errorf("%v would not be tried again", err)
		}
	}
}
