package infra

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

// Sizes and constants of an ELF64 file (elf(5)).
const (
	base       = 0x400000 // where a static executable is usually mapped
	pageMax    = 0x10000  // the largest page size of our machines: arm64 may use 64 KiB
	ptLoad     = 1
	ptGNUStack = 0x6474e551
	flagX      = 1
	flagW      = 2
	flagR      = 4
)

// header is the ELF64 file header.
type header struct {
	Ident                      [16]byte
	Type, Machine              uint16
	Version                    uint32
	Entry, Phoff, Shoff        uint64
	Flags                      uint32
	Ehsize, Phentsize, Phnum   uint16
	Shentsize, Shnum, Shstrndx uint16
}

// segment is one ELF64 program header.
type segment struct {
	Type, Flags                                uint32
	Offset, Vaddr, Paddr, Filesz, Memsz, Align uint64
}

// executable wraps code in a static ELF64 executable: one segment, readable
// and executable, that maps the whole file, and a stack that is not
// executable. There are no sections: nothing links against it.
func executable(m machine) []byte {
	const headers = uint64(unsafe.Sizeof(header{}) + 2*unsafe.Sizeof(segment{}))
	size := headers + uint64(len(m.code))
	h := header{
		// 64 bit, little endian, version 1, System V.
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1},
		Type:  2, Machine: m.elf, Version: 1,
		Entry: base + headers, Phoff: uint64(unsafe.Sizeof(header{})),
		Ehsize:    uint16(unsafe.Sizeof(header{})),
		Phentsize: uint16(unsafe.Sizeof(segment{})), Phnum: 2,
	}
	text := segment{Type: ptLoad, Flags: flagR | flagX, Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: pageMax}
	stack := segment{Type: ptGNUStack, Flags: flagR | flagW, Align: 16}

	var b bytes.Buffer
	for _, part := range []any{h, text, stack, m.code} {
		// A write of fixed-size values to memory has no error to give.
		_ = binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}
