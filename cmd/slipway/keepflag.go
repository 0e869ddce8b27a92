package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// keepFlag says whether failed tests are kept, and may say for how long. It is
// one key of the config file for runs here and on a server.
type keepFlag struct {
	on  bool
	how time.Duration // 0: not said
}

func (k *keepFlag) String() string {
	if k.how > 0 {
		return k.how.String()
	}
	return strconv.FormatBool(k.on)
}

// Type is what `--help` shows.
func (k *keepFlag) Type() string { return "time" }

// Set reads yes or no, or a time.
func (k *keepFlag) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		*k = keepFlag{on: on}
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("give a time such as 30m or 2h, or 0")
	}
	*k = keepFlag{true, d}
	return nil
}

// register lets it stand without a value, which is yes.
func (k *keepFlag) register(fs *pflag.FlagSet, usage string) {
	fs.Var(k, "keep-failed", usage)
	fs.Lookup("keep-failed").NoOptDefVal = "true"
}

// stay is how long they stay; 0: they do not.
func (k *keepFlag) stay(otherwise time.Duration) time.Duration {
	switch {
	case !k.on:
		return 0
	case k.how > 0:
		return k.how
	}
	return otherwise
}
