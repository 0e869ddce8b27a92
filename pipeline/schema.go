package pipeline

import (
	"encoding/json"
)

// Schema is the JSON Schema (draft 2020-12) of .ci.yml, written from the tables
// that the parser reads. It says what a file looks like; that names lead
// somewhere, and what expressions come to, only the parser says.
func Schema() []byte {
	return schemaText("slipway .ci.yml, version 1", fileCodec.shape)
}

// EnvironmentSchema is the JSON Schema of an environment file.
func EnvironmentSchema() []byte {
	return schemaText("slipway environment file, version 1", plainShape(environmentCodec.shape))
}

func schemaText(title string, root *shape) []byte {
	defs := map[string]any{}
	out := root.object(defs)
	out["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	out["title"] = title
	out["$defs"] = defs
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		panic("pipeline: a schema that is no JSON: " + err.Error()) // maps of strings and numbers only
	}
	return append(text, '\n')
}

// schema is s as JSON Schema; objects go to defs and are referred to.
func (s *shape) schema(defs map[string]any) map[string]any {
	out := s.bare(defs)
	if s.expression && !s.takesAnyText() {
		return map[string]any{"anyOf": []any{out, map[string]any{"type": "string", "pattern": `\$\{\{`}}}
	}
	return out
}

func (s *shape) takesAnyText() bool {
	if s.kind == "either" {
		for _, e := range s.either {
			if e.takesAnyText() {
				return true
			}
		}
	}
	return s.kind == "string" && s.pattern == "" && s.enum == nil
}

func (s *shape) bare(defs map[string]any) map[string]any {
	switch s.kind {
	case "any":
		return map[string]any{}
	case "either":
		var choices []any
		for _, e := range s.either {
			choices = append(choices, e.schema(defs))
		}
		return map[string]any{"anyOf": choices}
	case "object":
		if defs[s.def] == nil {
			defs[s.def] = true // what refers back to it finds it
			defs[s.def] = s.object(defs)
		}
		return map[string]any{"$ref": "#/$defs/" + s.def}
	case "map":
		return s.mapping(defs)
	case "list":
		out := map[string]any{"type": "array", "items": s.items.schema(defs)}
		if s.atLeast > 0 {
			out["minItems"] = s.atLeast
		}
		return out
	}
	out := map[string]any{"type": s.kind}
	if s.pattern != "" {
		out["pattern"] = s.pattern
	}
	if s.enum != nil {
		out["enum"] = s.enum
	}
	if s.kind == "integer" || s.kind == "number" {
		out["minimum"] = s.low
		if s.high > 0 {
			out["maximum"] = s.high
		}
	}
	return out
}

// object has known keys, and x-* for whatever a user likes.
func (s *shape) object(defs map[string]any) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range s.fields {
		p := f.shape.schema(defs)
		p["description"] = f.doc
		properties[f.key] = p
		if f.required {
			required = append(required, f.key)
		}
	}
	out := map[string]any{
		"type": "object", "description": s.doc, "properties": properties,
		"patternProperties": map[string]any{"^x-": map[string]any{}}, "additionalProperties": false,
	}
	if len(required) > 0 {
		out["required"] = required
	}
	if s.items != nil { // keys of the user's choice beside the known ones
		out["additionalProperties"] = s.items.schema(defs)
		out["propertyNames"] = keyNames(s.keys, true)
		out["minProperties"] = 1
	}
	if len(s.one) > 0 {
		var choices []any
		for _, key := range s.one {
			choices = append(choices, map[string]any{"required": []string{key}})
		}
		out["oneOf"] = choices
	}
	return out
}

// mapping has keys of the user's choice.
func (s *shape) mapping(defs map[string]any) map[string]any {
	out := map[string]any{"type": "object", "additionalProperties": s.items.schema(defs)}
	if s.extensions {
		out["patternProperties"] = map[string]any{"^x-": map[string]any{}}
	}
	if s.keys != "" {
		out["propertyNames"] = keyNames(s.keys, s.extensions)
	}
	if s.atLeast > 0 {
		out["minProperties"] = s.atLeast
	}
	return out
}

func keyNames(pattern string, extensions bool) map[string]any {
	if !extensions {
		return map[string]any{"pattern": pattern}
	}
	return map[string]any{"anyOf": []any{map[string]any{"pattern": pattern}, map[string]any{"pattern": "^x-"}}}
}
