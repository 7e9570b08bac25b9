package infra

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// install writes the program of this machine to a file that can be run.
func install(t *testing.T) string {
	t.Helper()
	code, err := Program(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, code, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs cmd and ends it with the test.
func start(t *testing.T, cmd *exec.Cmd) (exited chan error) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited = make(chan error, 1)
	done := make(chan struct{})
	go func() { exited <- cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return exited
}

// eventually waits up to a minute for what takes a moment on an idle machine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain for: %s", what)
		}
	}
}

// waiting reports whether the process sleeps in rt_sigtimedwait.
func waiting(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/syscall")
	number := map[string]string{"amd64": "128 ", "arm64": "137 "}[runtime.GOARCH]
	return err == nil && strings.HasPrefix(string(b), number)
}

func TestProgramEndsOnSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, init := range []bool{false, true} {
			name := sig.String()
			if init {
				name += " as init"
			}
			t.Run(name, func(t *testing.T) {
				cmd := exec.Command(install(t))
				if init {
					cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
				}
				exited := start(t, cmd)
				eventually(t, "the program to wait", func() bool { return waiting(cmd.Process.Pid) })
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-exited:
					if err != nil {
						t.Errorf("exit: %v, want 0", err)
					}
				case <-time.After(time.Minute):
					t.Error("still there a minute after the signal")
				}
			})
		}
	}
}

// TestProgramSurvivesInterruption: a stop and continue gives rt_sigtimedwait an EINTR
// on some kernels; the program must go on waiting.
func TestProgramSurvivesInterruption(t *testing.T) {
	cmd := exec.Command(install(t))
	start(t, cmd)
	eventually(t, "the program to wait", func() bool { return waiting(cmd.Process.Pid) })
	for range 3 {
		for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	eventually(t, "the program to wait again", func() bool { return waiting(cmd.Process.Pid) })
}

// TestProgramReaps gives the program, init of a new pid namespace, orphans:
// processes of a shell that enters the namespace through nsenter and ends.
func TestProgramReaps(t *testing.T) {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Fatal("this test needs nsenter of util-linux: apt-get install util-linux")
	}
	cmd := exec.Command(install(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	start(t, cmd)
	pid := strconv.Itoa(cmd.Process.Pid)
	eventually(t, "the program to wait", func() bool { return waiting(cmd.Process.Pid) })

	for range 5 {
		// The inner shell ends at once and leaves its children to init.
		out, err := exec.Command(nsenter, "-t", pid, "-p", "sh", "-c", "(sleep 0.02 & sleep 0.03 &)").CombinedOutput()
		if err != nil {
			t.Fatalf("nsenter: %v: %s", err, out)
		}
	}
	time.Sleep(50 * time.Millisecond)
	eventually(t, "no child and no zombie to be left", func() bool {
		b, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		return err == nil && len(bytes.TrimSpace(b)) == 0
	})
}

func TestProgramUsesNoCPU(t *testing.T) {
	cmd := exec.Command(install(t))
	start(t, cmd)
	eventually(t, "the program to wait", func() bool { return waiting(cmd.Process.Pid) })
	before := ticks(t, cmd.Process.Pid)
	time.Sleep(200 * time.Millisecond)
	if used := ticks(t, cmd.Process.Pid) - before; used > 1 {
		t.Errorf("used %d hundredths of a second of CPU time in 200 ms of waiting", used)
	}
}

// ticks is the CPU time that a process has used, in hundredths of a second.
func ticks(t *testing.T, pid int) (sum int) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	// The two fields are the 12th and 13th behind the name in parentheses.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func TestProgramFile(t *testing.T) {
	for arch, want := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		code, err := Program(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(code))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if f.Machine != want || f.Type != elf.ET_EXEC || f.ByteOrder != binary.LittleEndian {
			t.Errorf("%s: %v %v %v", arch, f.Machine, f.Type, f.ByteOrder)
		}
		text, stack := f.Progs[0], f.Progs[1]
		if text.Type != elf.PT_LOAD || text.Flags != elf.PF_R|elf.PF_X || text.Filesz != uint64(len(code)) {
			t.Errorf("%s: text segment %+v of a file of %d bytes", arch, text.ProgHeader, len(code))
		}
		if stack.Type != elf.PT_GNU_STACK || stack.Flags&elf.PF_X != 0 {
			t.Errorf("%s: stack %+v", arch, stack.ProgHeader)
		}
		if entry := f.Entry - text.Vaddr; !bytes.Equal(code[entry:], machines[arch].code) {
			t.Errorf("%s: entry point is not the start of the code", arch)
		}
	}
	if _, err := Program("mips"); err == nil {
		t.Error("a program for mips")
	}
}

// TestProgramListing compares the bytes with what a disassembler makes of
// them, where one is installed: system calls and their number.
func TestProgramListing(t *testing.T) {
	for arch, tool := range map[string][]string{
		"amd64": {"x86_64-linux-gnu-objdump", "-m", "i386:x86-64"},
		"arm64": {"aarch64-linux-gnu-objdump", "-m", "aarch64"},
	} {
		path, err := exec.LookPath(tool[0])
		if err != nil {
			t.Logf("%s is not installed: listing of %s not checked", tool[0], arch)
			continue
		}
		file := filepath.Join(t.TempDir(), arch)
		if err := os.WriteFile(file, machines[arch].code, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path, "-D", "-b", "binary", tool[1], tool[2], file).Output()
		if err != nil {
			t.Fatal(err)
		}
		calls := strings.Count(string(out), "syscall") + strings.Count(string(out), "svc")
		if calls != 4 || strings.Contains(string(out), "(bad)") || strings.Contains(string(out), ".word") {
			t.Errorf("%s: %d system calls, want 4, in\n%s", arch, calls, out)
		}
	}
}
