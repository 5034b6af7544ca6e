// A check of API keys in Go, on the ABI itself: who has a key may pass, and the upstream is told who it is.
package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The configuration.
type config struct {
	// The request header that carries the key.
	Header string `json:"header"`
	// The keys, by the names of those who have them.
	Keys map[string]string `json:"keys"`
}

// A key that is shorter can be guessed.
const shortest = 16

func read(text []byte) (*config, error) {
	config := config{Header: "x-api-key"}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return nil, err
	}
	if len(config.Keys) == 0 {
		return nil, errors.New("`keys` is empty, so that nobody could come in; add a key")
	}
	for name, key := range config.Keys {
		if len(key) < shortest {
			return nil, fmt.Errorf("the key of `%s` has less than %d bytes", name, shortest)
		}
	}
	return &config, nil
}

// owner tells whose key it is. All are compared, so that the time does not tell which one is nearly right.
func (c *config) owner(key []byte) (owner string, found bool) {
	for name, known := range c.Keys {
		if subtle.ConstantTimeCompare([]byte(known), key) == 1 {
			owner, found = name, true
		}
	}
	return owner, found
}

// Filters may share a VM, each with a root context and a configuration of its own; a stream has that of its root.
var configs = map[uint32]*config{}

//go:wasmexport proxy_abi_version_0_2_1
func proxyABIVersion() {}

//go:wasmexport proxy_on_context_create
func onContextCreate(context, root uint32) {
	configs[context] = configs[root]
}

//go:wasmexport proxy_on_delete
func onDelete(context uint32) {
	delete(configs, context)
}

//go:wasmexport proxy_on_configure
func onConfigure(root, size uint32) uint32 {
	config, err := read(pluginConfiguration())
	if err != nil {
		log(logError, err.Error())
		return 0
	}
	configs[root] = config
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(context, count, end uint32) uint32 {
	config := configs[context]
	var carried [][]byte
	for _, header := range requestHeaders() {
		if strings.EqualFold(string(header.name), config.Header) {
			carried = append(carried, header.value)
		}
	}
	if len(carried) == 0 {
		return refuse()
	}
	if len(carried) > 1 {
		log(logWarn, "several keys")
		return refuse()
	}
	name, found := config.owner(carried[0])
	if !found {
		log(logWarn, "unknown key")
		return refuse()
	}
	// What is not carried out must not let the request pass.
	if !removeRequestHeader(config.Header) || !setRequestHeader("x-user", name) {
		return reply(500, nil, "")
	}
	return actionContinue
}

func refuse() uint32 {
	return reply(401, []pair{{[]byte("www-authenticate"), []byte("ApiKey")}}, "unauthorized\n")
}

func main() {}
