package promote

import (
	"fmt"
	"strconv"
	"time"

	"slipway/pipeline"
)

const week = 7 * 24 * 60 // minutes

// frozen says whether now lies in a weekly window, and when that ends. A window
// is of clock times: where the clocks are put back it may hold twice, and one
// that begins in the hour that is left out begins with the hour after. A window
// that ends when it begins holds all week.
func frozen(f pipeline.Freeze, now time.Time) (bool, time.Time, error) {
	zone, err := time.LoadLocation(f.TZ)
	if err != nil {
		return true, time.Time{}, fmt.Errorf("time zone %s: %w", f.TZ, err)
	}
	start, err := minuteOfWeek(f.Start)
	if err != nil {
		return true, time.Time{}, err
	}
	end, err := minuteOfWeek(f.End)
	if err != nil {
		return true, time.Time{}, err
	}
	in := func(t time.Time) bool {
		t = t.In(zone)
		m := (int(t.Weekday())*24+t.Hour())*60 + t.Minute()
		return (m-start+week)%week < (end-start+week-1)%week+1
	}
	if !in(now) {
		return false, time.Time{}, nil
	}
	until := now.Truncate(time.Minute)
	for range week + 24*60 { // a week and what clocks are moved by
		if until = until.Add(time.Minute); !in(until) {
			return true, until.In(zone), nil
		}
	}
	return true, time.Time{}, nil
}

var days = map[string]time.Weekday{
	"Sun": time.Sunday, "Mon": time.Monday, "Tue": time.Tuesday, "Wed": time.Wednesday,
	"Thu": time.Thursday, "Fri": time.Friday, "Sat": time.Saturday,
}

// minuteOfWeek reads "Fri 17:00".
func minuteOfWeek(text string) (int, error) {
	if len(text) == len("Fri 17:00") && text[3] == ' ' && text[6] == ':' {
		day, known := days[text[:3]]
		hour, err1 := strconv.Atoi(text[4:6])
		minute, err2 := strconv.Atoi(text[7:])
		if known && err1 == nil && err2 == nil && hour >= 0 && hour < 24 && minute >= 0 && minute < 60 {
			return (int(day)*24+hour)*60 + minute, nil
		}
	}
	return 0, fmt.Errorf("%q is not a time of the week such as Fri 17:00", text)
}
