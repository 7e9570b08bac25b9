package store

import (
	"bytes"
	"fmt"
)

// maxDepth bounds the walk: a tree of pages with two children each would hold
// more than any disk before it is deeper.
const maxDepth = 64

// element is one entry of a branch or leaf page.
type element struct {
	bucket bool // leaf: value is a bucket
	key    []byte
	value  []byte // leaf
	child  uint64 // branch
}

// element returns the i-th entry of a branch or leaf page.
func (g page) element(i int) (element, error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(g.data) {
		return element{}, damagedPage(g.id, "has %d entries, more than it has room for", g.count)
	}
	h := g.data[at : at+elementSize]
	var e element
	var pos, ksize, vsize uint64
	if g.flags == flagLeaf {
		flags := native.Uint32(h)
		if flags&^leafBucket != 0 {
			return element{}, damagedPage(g.id, "has an entry of unknown kind %#x", flags)
		}
		e.bucket = flags == leafBucket
		pos, ksize, vsize = uint64(native.Uint32(h[4:])), uint64(native.Uint32(h[8:])), uint64(native.Uint32(h[12:]))
	} else {
		pos, ksize, e.child = uint64(native.Uint32(h)), uint64(native.Uint32(h[4:])), native.Uint64(h[8:])
	}
	from := uint64(at) + pos
	if from+ksize+vsize > uint64(len(g.data)) {
		return element{}, damagedPage(g.id, "has an entry that reaches beyond its end")
	}
	e.key = g.data[from : from+ksize]
	e.value = g.data[from+ksize : from+ksize+vsize]
	return e, nil
}

// bucket walks the tree of a bucket; name is nil for the root bucket.
func (p *pages) bucket(root uint64, name []byte) error {
	return p.tree(root, name, nil, nil, 0)
}

// tree walks the page id and what is under it. Its keys must not be below min,
// and must be below max where there is one: else bbolt looks for a key in one
// place and puts it in another.
func (p *pages) tree(id uint64, bucket, minKey, maxKey []byte, depth int) error {
	if depth > maxDepth {
		return damagedPage(id, "is %d levels deep in its tree", depth)
	}
	pg, err := p.read(id)
	if err != nil {
		return err
	}
	switch pg.flags {
	case flagBranch:
		return p.branch(pg, bucket, minKey, maxKey, depth)
	case flagLeaf:
		return p.leaf(pg, bucket, minKey, maxKey)
	}
	return damagedPage(id, "is in a tree and is neither branch nor leaf (flags %#x)", pg.flags)
}

func (p *pages) branch(pg page, bucket, minKey, maxKey []byte, depth int) error {
	if pg.count == 0 {
		return damagedPage(pg.id, "is a branch without children")
	}
	elements, err := pg.elements(minKey, maxKey)
	if err != nil {
		return err
	}
	for i, e := range elements {
		upper := maxKey
		if i+1 < len(elements) {
			upper = elements[i+1].key
		}
		if err := p.tree(e.child, bucket, e.key, upper, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) leaf(pg page, bucket, minKey, maxKey []byte) error {
	elements, err := pg.elements(minKey, maxKey)
	if err != nil {
		return err
	}
	for _, e := range elements {
		if !e.bucket && (bytes.Equal(bucket, bucketEvents) || bytes.Equal(bucket, bucketSnapshots)) {
			if _, err := keySeq(e.key); err != nil {
				return err
			}
		}
		if !e.bucket {
			continue
		}
		root, inline, err := pg.bucket(e)
		if err != nil {
			return err
		}
		if root != 0 {
			err = p.bucket(root, e.key)
		} else {
			err = p.leaf(inline, e.key, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	if n := len(elements); n > 0 && bytes.Equal(bucket, bucketEvents) {
		p.last.Seq, err = keySeq(elements[n-1].key)
		p.last.Value = elements[n-1].value
	}
	return err
}

// bucket reads the header of the bucket that is the value of e: the page that
// is its root, or where that is 0, the bucket itself, if it is so small that
// it lies in its parent's page.
func (g page) bucket(e element) (root uint64, inline page, err error) {
	if len(e.value) < bucketSize {
		return 0, page{}, damagedPage(g.id, "has a bucket without a header")
	}
	if root := native.Uint64(e.value); root != 0 {
		return root, page{}, nil
	}
	inline = page{id: g.id, data: e.value[bucketSize:]}
	if len(inline.data) < pageHeader {
		return 0, page{}, damagedPage(g.id, "has a bucket without a page")
	}
	inline.flags = native.Uint16(inline.data[8:])
	inline.count = int(native.Uint16(inline.data[10:]))
	if inline.flags != flagLeaf {
		return 0, page{}, damagedPage(g.id, "has a bucket that is no leaf (flags %#x)", inline.flags)
	}
	return 0, inline, nil
}

// elements returns all entries of a page and checks that their keys ascend
// from min and stay below max.
func (g page) elements(minKey, maxKey []byte) ([]element, error) {
	all := make([]element, 0, min(g.count, len(g.data)/elementSize))
	for i := range g.count {
		e, err := g.element(i)
		if err != nil {
			return nil, err
		}
		switch {
		case len(e.key) == 0 && g.flags == flagLeaf,
			i == 0 && bytes.Compare(e.key, minKey) < 0,
			i > 0 && bytes.Compare(e.key, all[i-1].key) <= 0,
			maxKey != nil && bytes.Compare(e.key, maxKey) >= 0:
			return nil, damagedPage(g.id, "has its keys out of order")
		}
		all = append(all, e)
	}
	return all, nil
}

// freelist checks that only pages that nothing uses are free: bbolt would
// write over them.
func (p *pages) freelist() error {
	if p.meta.freelist == noFreelist {
		return nil
	}
	pg, err := p.read(p.meta.freelist)
	if err != nil {
		return err
	}
	if pg.flags != flagFree {
		return damagedPage(pg.id, "should be the free list and is not (flags %#x)", pg.flags)
	}
	ids, count := pg.data[pageHeader:], uint64(pg.count)
	if pg.count == 0xFFFF {
		count, ids = native.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return damagedPage(pg.id, "lists %d free pages, more than it has room for", count)
	}
	last := uint64(firstPage - 1)
	for i := range count {
		id := native.Uint64(ids[8*i:])
		if id <= last || id >= p.meta.pages || p.used[id] {
			return damagedPage(pg.id, "lists page %d as free, which it is not", id)
		}
		last = id
	}
	return nil
}

// lostCommit is for a file of which one meta page is not valid. If that was
// the newer one, the other knows all but the last commit, and the file looks
// sound without it. But the pages of that commit are still there: a record in
// a page that is not in use, and that continues the chain, tells of it.
func (p *pages) lostCommit() error {
	var chain Chain
	if p.last.Seq != 0 {
		chain = chainAfter(p.last)
	}
	for id := uint64(firstPage); id < uint64(p.size/p.meta.pageSize); id++ {
		if id < p.meta.pages && p.used[id] {
			continue
		}
		pg, err := p.leftover(id)
		if err != nil {
			return err
		}
		if pg.flags == flagLeaf && native.Uint64(pg.data) == id && pg.continues(chain) {
			return fmt.Errorf("%w: a meta page is not valid, and record %d, in page %d, is lost with it", ErrDamaged, chain.last+1, id)
		}
	}
	return nil
}

// continues tells whether a leaf page, which may hold anything, holds the
// record that is next in the chain.
func (g page) continues(chain Chain) bool {
	for i := range g.count {
		e, err := g.element(i)
		if err != nil {
			return false
		}
		if e.bucket && bytes.Equal(e.key, bucketEvents) {
			if _, inline, err := g.bucket(e); err == nil && inline.flags == flagLeaf && inline.continues(chain) {
				return true
			}
			continue
		}
		seq, err := keySeq(e.key)
		if err != nil {
			continue
		}
		if _, err := chain.Next(Record{Seq: seq, Value: e.value}); err == nil {
			return true
		}
	}
	return false
}

// leftover reads a page that nothing refers to, with as much of its overflow
// as there is.
func (p *pages) leftover(id uint64) (page, error) {
	pg, overflow, err := p.load(id)
	if err != nil || overflow == 0 || pg.flags != flagLeaf {
		return pg, err
	}
	rest := min(int64(overflow)*p.meta.pageSize, p.size-int64(id+1)*p.meta.pageSize, maxEvent+p.meta.pageSize)
	more := make([]byte, rest)
	if err := p.readAt(more, int64(id+1)*p.meta.pageSize); err != nil {
		return page{}, err
	}
	pg.data = append(pg.data, more...)
	return pg, nil
}
