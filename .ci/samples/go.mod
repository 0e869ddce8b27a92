// Where the samples of webhooks come from that internal/forge must answer: go-scm's
// recorded ones. Its code is not used.
module slipway/ci-samples

go 1.26.8

require github.com/jenkins-x/go-scm v1.15.17
