// Package checkpoint reads and writes the sandbox checkpoints of cri-dockerd
// and dockershim: one JSON file for each sandbox, named by its id.
//
// They hold what the Engine does not know of a sandbox and a CNI DEL needs: its
// port mappings. Of pods that another shim made they are read where libcni's
// cache has no result; for pods of our own they are written, so that
// cri-dockerd can take the node back.
//
// # Checksum
//
// cri-dockerd checks one, over the data as Go prints it, type names included,
// and treats a file with another one as damaged: it is written so. It is not
// checked on reading: dockershim's comes from other type names, and would have
// to be taken on trust in any case. What is checked is that the file is whole
// and that its values can be.
package checkpoint
