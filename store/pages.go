package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt maps its file and trusts what it finds: a page beyond the end of the
// file is a SIGBUS, a branch that leads back to itself recurses until the
// stack ends the process, and a free list that names a page in use loses data
// at a later commit. Of all that it checks only the two meta pages. So the
// structure is checked here first, with plain reads. What the records hold is
// left to [Chain].
//
// Layout of bbolt's file, format version 2, in the byte order of the machine:
//
//	page    id(8) flags(2) count(2) overflow(4), then by flags:
//	meta    magic(4) version(4) pageSize(4) flags(4) root(8) sequence(8)
//	        freelist(8) pages(8) txid(8) checksum(8)
//	branch  count × { pos(4) ksize(4) page(8) }, then the keys
//	leaf    count × { flags(4) pos(4) ksize(4) vsize(4) }, then keys and values
//	free    count × page(8), or where count is 0xFFFF, count(8) first
//
// pos counts from the element that holds it.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	flagBranch = 0x01
	flagLeaf   = 0x02
	flagFree   = 0x10

	leafBucket = 0x01 // flag of a leaf element whose value is a bucket

	pageHeader  = 16
	metaSize    = 64
	elementSize = 16
	bucketSize  = 16 // root(8) sequence(8), then the page itself where root is 0

	noFreelist = ^uint64(0)
	firstPage  = 2 // after the meta pages
)

var native = binary.NativeEndian

type boltMeta struct {
	pageSize int64
	root     uint64
	freelist uint64
	pages    uint64 // of the file, whether in use or free
	txid     uint64
}

// parseMeta reads a meta page. It returns false where bbolt would not accept
// it.
func parseMeta(page []byte) (boltMeta, bool) {
	if len(page) < pageHeader+metaSize {
		return boltMeta{}, false
	}
	b := page[pageHeader : pageHeader+metaSize]
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if native.Uint32(b) != boltMagic || native.Uint32(b[4:]) != boltVersion || native.Uint64(b[56:]) != h.Sum64() {
		return boltMeta{}, false
	}
	return boltMeta{
		pageSize: int64(native.Uint32(b[8:])),
		root:     native.Uint64(b[16:]),
		freelist: native.Uint64(b[32:]),
		pages:    native.Uint64(b[40:]),
		txid:     native.Uint64(b[48:]),
	}, true
}

// pages reads a bbolt file page by page and notes which of them are in use.
type pages struct {
	f    *os.File
	size int64
	meta boltMeta
	// whole tells that both meta pages are valid.
	whole bool
	used  []bool

	// last is the last of the events, its value as it is in the page read.
	last Record
}

// checkPages finds out whether bbolt can map and use f. It returns ErrDamaged
// with the page concerned, or the error of a read.
func checkPages(f *os.File) error {
	p := &pages{f: f}
	if err := p.readMeta(); err != nil {
		return err
	}
	if err := p.bucket(p.meta.root, nil); err != nil {
		return err
	}
	if err := p.freelist(); err != nil {
		return err
	}
	if p.whole {
		return nil
	}
	return p.lostCommit()
}

func (p *pages) readMeta() error {
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	p.size = info.Size()
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no regular file", ErrDamaged)
	}
	if p.size == 0 {
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	if err := p.chooseMeta(); err != nil {
		return err
	}
	m := p.meta
	if m.pageSize < 1<<10 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0 {
		return fmt.Errorf("%w: its page size is %d", ErrDamaged, m.pageSize)
	}
	if have := uint64(p.size / m.pageSize); m.pages > have {
		return fmt.Errorf("%w: it was cut short: %d pages of %d are left", ErrDamaged, have, m.pages)
	}
	p.used = make([]bool, m.pages)
	return nil
}

// chooseMeta takes the newer of the valid meta pages, as bbolt does. Where
// page 0 is not valid the page size is not known either, and page 1 is looked
// for at every size.
func (p *pages) chooseMeta() error {
	first, ok, err := p.metaAt(0)
	if err != nil {
		return err
	}
	if ok {
		second, ok, err := p.metaAt(first.pageSize)
		if err != nil {
			return err
		}
		p.meta, p.whole = first, ok
		if ok && second.txid > first.txid {
			p.meta = second
		}
		return nil
	}
	for at := int64(1 << 10); at <= 1<<24; at <<= 1 {
		second, ok, err := p.metaAt(at)
		if err != nil {
			return err
		}
		if ok && second.pageSize == at {
			p.meta = second
			return nil
		}
	}
	return fmt.Errorf("%w: neither of its meta pages is valid", ErrDamaged)
}

func (p *pages) metaAt(at int64) (boltMeta, bool, error) {
	b := make([]byte, pageHeader+metaSize)
	if at+int64(len(b)) > p.size {
		return boltMeta{}, false, nil
	}
	if _, err := p.f.ReadAt(b, at); err != nil {
		return boltMeta{}, false, err
	}
	m, ok := parseMeta(b)
	return m, ok, nil
}

// page is a page as read, with its overflow.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte // header included
}

// read reads a page that something refers to, and notes that it is in use: to
// be referred to twice is damage.
func (p *pages) read(id uint64) (page, error) {
	if id < firstPage || id >= p.meta.pages {
		return page{}, damagedPage(id, "does not exist: there are %d", p.meta.pages)
	}
	pg, overflow, err := p.load(id)
	if err != nil {
		return page{}, err
	}
	if self := native.Uint64(pg.data); self != id {
		return page{}, damagedPage(id, "says that it is page %d", self)
	}
	if overflow >= p.meta.pages-id {
		return page{}, damagedPage(id, "reaches beyond the end of the file")
	}
	for i := id; i <= id+overflow; i++ {
		if p.used[i] {
			return page{}, damagedPage(i, "is used twice")
		}
		p.used[i] = true
	}
	rest := make([]byte, overflow*uint64(p.meta.pageSize))
	if err := p.readAt(rest, int64(id+1)*p.meta.pageSize); err != nil {
		return page{}, err
	}
	pg.data = append(pg.data, rest...)
	return pg, nil
}

// load reads a page without its overflow, and believes nothing of it.
func (p *pages) load(id uint64) (pg page, overflow uint64, err error) {
	pg = page{id: id, data: make([]byte, p.meta.pageSize)}
	if err := p.readAt(pg.data, int64(id)*p.meta.pageSize); err != nil {
		return page{}, 0, err
	}
	pg.flags = native.Uint16(pg.data[8:])
	pg.count = int(native.Uint16(pg.data[10:]))
	return pg, uint64(native.Uint32(pg.data[12:])), nil
}

func (p *pages) readAt(b []byte, at int64) error {
	_, err := p.f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it was cut short while it was read", ErrDamaged)
	}
	return err
}

func damagedPage(id uint64, format string, args ...any) error {
	return fmt.Errorf("%w: page %d %s", ErrDamaged, id, fmt.Sprintf(format, args...))
}
