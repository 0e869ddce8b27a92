package pipeline

import "strings"

// keyValues takes Compose's two forms of variables: a map, or a list of
// KEY=VALUE. A KEY alone would take the value of the machine that slipway runs
// on, and then the same commit would not be the same pipeline everywhere.
var keyValues = codec[map[string]string]{
	&shape{kind: "either", says: "map, or list of KEY=VALUE", either: []*shape{
		{kind: "map", items: anyText.shape, keys: `^[^=\x00]+$`},
		{kind: "list", items: &shape{kind: "string", pattern: `^[^=\x00]+=`}},
	}},
	func(d *decoder, n *node) map[string]string {
		if !d.spend(n) {
			return nil
		}
		out := map[string]string{}
		switch n.kind {
		case mapNode:
			for _, p := range n.pairs {
				d.keyValue(p, out)
			}
		case listNode:
			for _, item := range n.items {
				d.keyValueItem(item, out)
			}
		default:
			d.report(n.at, "%s where a map or a list of KEY=VALUE belongs", n.what())
		}
		if len(out) == 0 {
			return nil
		}
		return out
	},
}

const noPassThrough = `slipway passes nothing on from the machine it runs on, so that a commit means the same everywhere; write a value ("" for empty), or use secrets`

func (d *decoder) keyValue(p pair, out map[string]string) {
	switch {
	case p.key == "" || strings.ContainsAny(p.key, "=\x00"):
		d.report(p.at, "%q cannot be a variable's name", shorten(p.key))
	case p.value.null():
		d.report(p.value.at, "%s has no value; %s", p.key, noPassThrough)
	default:
		out[p.key] = anyText.decode(d.under(p.key), p.value)
	}
}

func (d *decoder) keyValueItem(item *node, out map[string]string) {
	if !d.spend(item) {
		return
	}
	if item.kind != scalarNode || item.tag != "!!str" {
		d.report(item.at, "%s where KEY=VALUE belongs", item.what())
		return
	}
	text, _, known := d.text(item)
	if !known {
		return
	}
	key, value, found := strings.Cut(text, "=")
	_, twice := out[key]
	switch {
	case !found && key != "":
		d.report(item.at, "%s has no value; %s", shorten(key), noPassThrough)
	case key == "":
		d.report(item.at, "%q has no name before the =", shorten(text))
	case twice:
		d.report(item.at, "%s is given twice; keep one", shorten(key))
	default:
		out[key] = value
	}
}
