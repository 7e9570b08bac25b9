// Package cni gives pods a network on backends that have none of their own,
// by running CNI plugins through libcni.
//
// An attachment is made in two steps. [Networks.Plan] pins down what is to be
// done: today's configuration list byte for byte, the arguments, the
// interface. The caller writes the plan to its log and then has
// [Networks.Add] carry it out. Whatever becomes of the configuration files or
// of the daemon, [Networks.Del] undoes the ADD with the very plan that made
// it, as the CNI specification asks.
//
// The configurations are watched while [Networks.Run] runs: what is loaded
// follows every change, and a use reads no file. No plugin is run only to see
// whether it is there; those that know the verb STATUS are asked behind the
// callers' backs.
//
// # Crash
//
// A daemon that dies during an ADD leaves a plugin process that works on, and
// may reserve an address after recovery's DEL. So recovery first calls
// [Networks.Quiesce], which ends what still works for the container id, and
// then Del, which is repeatable. For attachments that no log of ours knows,
// since another shim made them, [Networks.Cached] reads the plan back from
// libcni's cache.
//
// The package imports nothing of crimux.
package cni
