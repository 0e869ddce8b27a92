package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"

	"slipway/internal/ledger"
)

// openapi gives the document of all routes: https://spec.openapis.org/oas/v3.1.1.
func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	s.say(w, http.StatusOK, document(s.api()))
}

// object is one of JSON.
type object = map[string]any

func document(routes []route) object {
	types := schemas{}
	failure := types.body(content{of: problem{}})
	paths := map[string]object{}
	for _, r := range routes {
		method, path := r.operation()
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][method] = r.describe(types, failure)
	}
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "slipway", "version": "1", "description": "What `slipway serve` answers. Roles, each with what those before it may: viewer, developer, sysadmin, admin."},
		"paths":   paths,
		"components": object{
			"schemas": types,
			"securitySchemes": object{
				"token":    object{"type": "http", "scheme": "bearer", "description": "`slipway tokens add` makes one"},
				"password": object{"type": "http", "scheme": "basic", "description": "any name, and a token as the password"},
			},
		},
	}
}

var pathParameter = regexp.MustCompile(`{(\w+)}`)

func (r route) describe(types schemas, failure object) object {
	_, path := r.operation()
	parameters := []object{}
	for _, m := range pathParameter.FindAllStringSubmatch(path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range r.query {
		parameters = append(parameters, object{"name": p.name, "in": "query", "description": p.says, "schema": object{"type": "string"}})
	}
	code := max(r.code, http.StatusOK)
	out := object{
		"summary": r.summary, "parameters": parameters, "security": []object{},
		"responses": object{
			fmt.Sprint(code): object{"description": http.StatusText(code), "content": types.body(r.gives)},
			"default":        object{"description": "what went wrong, and what to do", "content": failure},
		},
	}
	if r.role != "" {
		out["description"] = "Takes the role " + string(r.role) + "."
		out["security"] = []object{{"token": []string{}}, {"password": []string{}}}
	}
	if takes := types.body(r.takes); len(takes) > 0 {
		out["requestBody"] = object{"required": true, "description": fmt.Sprintf("at most %d KiB", r.bodyLimit()>>10), "content": takes}
	}
	return out
}

// schemas makes JSON Schemas of Go types as encoding/json writes them. Those of
// structs are kept under their names, and referred to.
type schemas map[string]any

// body describes a content, by media type.
func (all schemas) body(c content) object {
	if c.of != nil && len(c.media) == 0 {
		c.media = []string{"application/json"}
	}
	out := object{}
	for _, media := range c.media {
		out[media] = object{}
		if c.of != nil {
			out[media] = object{"schema": all.of(reflect.TypeOf(c.of))}
		}
	}
	return out
}

func (all schemas) of(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	case reflect.TypeFor[json.RawMessage]():
		return object{}
	case reflect.TypeFor[ledger.Role]():
		return object{"type": "string", "enum": []ledger.Role{ledger.Viewer, ledger.Developer, ledger.Sysadmin, ledger.Admin}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return all.of(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": all.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": all.of(t.Elem())}
	case reflect.Interface:
		return object{}
	case reflect.Struct:
		if _, known := all[t.String()]; !known {
			all[t.String()] = nil // for types that hold themselves
			all[t.String()] = all.fields(t, object{"type": "object", "properties": object{}, "required": []string{}})
		}
		return object{"$ref": "#/components/schemas/" + t.String()}
	default:
		panic("server: no schema of " + t.String() + ": the API has no such type yet")
	}
}

// fields adds those of a struct, and of the structs it embeds.
func (all schemas) fields(t reflect.Type, to object) object {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			all.fields(f.Type, to)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		to["properties"].(object)[name] = all.of(f.Type) //nolint:forcetypeassert // of made it
		if !strings.Contains(options, "omit") {
			to["required"] = append(to["required"].([]string), name) //nolint:forcetypeassert // of made it
		}
	}
	return to
}
