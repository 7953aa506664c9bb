package crew

import (
	"container/list"
	"sync"
)

const (
	// cacheSize is how many versions' definitions, and how many versions' files, are kept in memory.
	cacheSize = 64
	// cachedFiles is how many bytes of files a version may have to be kept.
	cachedFiles = 256 << 10
)

// cache keeps what was used last of versions, which never change. Its zero value is ready.
type cache[T any] struct {
	mu    sync.Mutex
	order list.List // of entry[T], the one used last in front
	byID  map[string]*list.Element
}

type entry[T any] struct {
	id    string
	value T
}

func (c *cache[T]) get(id string) (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[T]).value, true
}

func (c *cache[T]) put(id string, value T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byID[id]; ok {
		return
	}
	if c.byID == nil {
		c.byID = map[string]*list.Element{}
	}
	c.byID[id] = c.order.PushFront(entry[T]{id, value})
	if c.order.Len() > cacheSize {
		oldest := c.order.Back()
		delete(c.byID, oldest.Value.(entry[T]).id)
		c.order.Remove(oldest)
	}
}
