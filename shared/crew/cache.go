package crew

import (
	"container/list"
	"sync"
)

// cacheSize is how many definitions are kept in memory.
const cacheSize = 64

// cache keeps the definitions used last. Its zero value is ready.
type cache struct {
	mu    sync.Mutex
	order list.List // of entry, the one used last in front
	byID  map[string]*list.Element
}

type entry struct {
	id  string
	def Definition
}

func (c *cache) get(id string) (Definition, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return Definition{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry).def, true
}

func (c *cache) put(id string, d Definition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byID[id]; ok {
		return
	}
	if c.byID == nil {
		c.byID = map[string]*list.Element{}
	}
	c.byID[id] = c.order.PushFront(entry{id, d})
	if c.order.Len() > cacheSize {
		oldest := c.order.Back()
		delete(c.byID, oldest.Value.(entry).id)
		c.order.Remove(oldest)
	}
}
