/* Preloaded into the program under test: counts the system calls that change files, over all its threads and child
 * processes, and at one of them kills everything or lets calls fail.
 *
 * A seccomp filter turns each such call into SIGSYS, so that calls made without libc are seen too; the handler makes
 * the call itself from a page that the filter lets through. Everything after the constructor is raw system calls.
 *
 *   CAMPAIGN_COUNTER  a file of 8 bytes: the number of calls so far
 *   CAMPAIGN_LOG      a file that gets a line a call, "number name subject" (for the chosen one alone with CAMPAIGN_POINT)
 *   CAMPAIGN_POINT    the number of the call to act at, from 1 on; without it calls are only counted
 *   CAMPAIGN_DEED     kill: SIGKILL to the process group, before the call
 *                     fail: this call fails with EIO
 *                     full: this call and all later ones that need space fail with ENOSPC; a write is cut in half first
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#define STUB_HIGH 0x1000u
#define STUB ((void *)((uint64_t)STUB_HIGH << 32))
#define PAGE 4096

extern const char stub_begin[], stub_end[];
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
__asm__("stub_begin: mov %rdi,%rax; mov %rsi,%rdi; mov %rdx,%rsi; mov %rcx,%rdx; mov %r8,%r10; mov %r9,%r8;"
        "mov 8(%rsp),%r9; syscall; ret; stub_end:");
#define REG(c, n) ((long)(c)->uc_mcontext.gregs[(int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9}[n]])
#define RESULT(c) ((c)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
__asm__("stub_begin: mov x8,x0; mov x0,x1; mov x1,x2; mov x2,x3; mov x3,x4; mov x4,x5; mov x5,x6; svc 0; ret;"
        "stub_end:");
#define REG(c, n) ((long)(c)->uc_mcontext.regs[n])
#define RESULT(c) ((c)->uc_mcontext.regs[0])
#else
#error "the shim knows x86-64 and aarch64"
#endif

static long (*const call)(long, ...) = (long (*)(long, ...))STUB;

/* What a call's first argument is, and whether the call needs space. */
enum subject { FD, PATH, AT };
struct watched {
    long number;
    const char *name;
    enum subject subject;
    int space;
};

static const struct watched WATCHED[] = {
    {SYS_openat, "open", AT, 1},
    {SYS_write, "write", FD, 1},
    {SYS_pwrite64, "pwrite", FD, 1},
    {SYS_writev, "writev", FD, 1},
    {SYS_pwritev, "pwritev", FD, 1},
    {SYS_pwritev2, "pwritev2", FD, 1},
    {SYS_sendfile, "sendfile", FD, 1},
    {SYS_ftruncate, "ftruncate", FD, 1},
    {SYS_truncate, "truncate", PATH, 1},
    {SYS_fallocate, "fallocate", FD, 1},
    {SYS_fsync, "fsync", FD, 1},
    {SYS_fdatasync, "fdatasync", FD, 1},
    {SYS_fchmod, "fchmod", FD, 0},
    {SYS_fchmodat, "chmod", AT, 0},
    {SYS_renameat2, "rename", AT, 0},
    {SYS_mkdirat, "mkdir", AT, 1},
    {SYS_unlinkat, "unlink", AT, 0},
    {SYS_linkat, "link", AT, 1},
    {SYS_symlinkat, "symlink", PATH, 1},
    /* copy_file_range(from, offset, to, ...): its subject is the third argument. */
    {SYS_copy_file_range, "copy", FD, 1},
#ifdef SYS_renameat
    {SYS_renameat, "rename", AT, 0},
#endif
#ifdef SYS_open
    {SYS_open, "open", PATH, 1},
    {SYS_creat, "open", PATH, 1},
    {SYS_chmod, "chmod", PATH, 0},
    {SYS_rename, "rename", PATH, 0},
    {SYS_mkdir, "mkdir", PATH, 1},
    {SYS_unlink, "unlink", PATH, 0},
    {SYS_rmdir, "unlink", PATH, 0},
    {SYS_link, "link", PATH, 1},
    {SYS_symlink, "symlink", PATH, 1},
#endif
};
#define COUNT (sizeof WATCHED / sizeof *WATCHED)

static uint64_t *counter;
static int log_fd = -1;
static uint64_t point;
static enum { COUNT_ONLY, KILL, FAIL, FULL } deed;

static size_t append(char *line, size_t at, const char *text) {
    while (*text && at < PAGE - 2) line[at++] = *text++;
    return at;
}

static size_t append_number(char *line, size_t at, uint64_t number) {
    char digits[20];
    int n = 0;
    do digits[n++] = '0' + number % 10; while (number /= 10);
    while (n) line[at++] = digits[--n];
    return at;
}

static int descriptor(const struct watched *w, ucontext_t *c) {
    return REG(c, w->number == SYS_copy_file_range ? 2 : 0);
}

static void tell(const struct watched *w, ucontext_t *c, uint64_t number) {
    char line[PAGE];
    size_t at = append_number(line, 0, number);
    at = append(line, append(line, append(line, at, " "), w->name), " ");
    if (w->subject == FD) {
        char link[32] = "/proc/self/fd/";
        link[append_number(link, 14, descriptor(w, c))] = 0;
        long length = call(SYS_readlinkat, AT_FDCWD, link, line + at, sizeof line - 2 - at, 0, 0);
        at += length > 0 ? length : 0;
    } else {
        at = append(line, at, (const char *)REG(c, w->subject == AT ? 1 : 0));
    }
    line[at++] = '\n';
    call(SYS_write, log_fd, line, at, 0, 0, 0);
}

/* Files, folders, and what the program says; not pipes, eventfds and sockets. */
static int counts(const struct watched *w, ucontext_t *c) {
    if (w->subject != FD) return 1;
    int fd = descriptor(w, c);
    struct stat status;
    if (fd == 1 || fd == 2) return 1;
    if (call(SYS_fstat, fd, &status, 0, 0, 0, 0)) return 0;
    return S_ISREG(status.st_mode) || S_ISDIR(status.st_mode);
}

static long really(const siginfo_t *info, ucontext_t *c) {
    return call(info->si_syscall, REG(c, 0), REG(c, 1), REG(c, 2), REG(c, 3), REG(c, 4), REG(c, 5));
}

static long act(const struct watched *w, const siginfo_t *info, ucontext_t *c, uint64_t number) {
    int here = number == point;
    if (here && log_fd >= 0) tell(w, c, number);
    if (here && deed == KILL) call(SYS_kill, 0, SIGKILL, 0, 0, 0, 0);
    if (here && deed == FAIL) return -EIO;
    int standard = w->subject == FD && descriptor(w, c) <= 2;
    if (deed == FULL && number >= point && w->space && !standard) {
        if (here && info->si_syscall == SYS_write && REG(c, 2) > 1)
            return call(SYS_write, REG(c, 0), REG(c, 1), REG(c, 2) / 2, 0, 0, 0);
        return -ENOSPC;
    }
    return really(info, c);
}

static void trapped(int signal, siginfo_t *info, void *context) {
    (void)signal;
    ucontext_t *c = context;
    for (size_t i = 0; i < COUNT; i++) {
        const struct watched *w = &WATCHED[i];
        if (w->number != info->si_syscall) continue;
        if (!counts(w, c)) break;
        uint64_t number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
        if (deed == COUNT_ONLY && log_fd >= 0) tell(w, c, number);
        RESULT(c) = act(w, info, c, number);
        return;
    }
    RESULT(c) = really(info, c);
}

static void give_up(const char *what) {
    struct iovec parts[] = {{"campaign shim: ", 15}, {(char *)what, strlen(what)}, {"\n", 1}};
    if (writev(2, parts, 3) < 0) _exit(126);
    _exit(125);
}

static void make_stub(void) {
    void *page = mmap(STUB, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page != STUB) give_up("no page for the stub");
    memcpy(page, stub_begin, stub_end - stub_begin);
    if (mprotect(page, PAGE, PROT_READ | PROT_EXEC)) give_up("no page to run in");
    __builtin___clear_cache(page, (char *)page + PAGE);
}

static void install_filter(void) {
    struct sock_filter code[16 + 2 * COUNT];
    unsigned short n = 0;
#define LOAD(field, more) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (more))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define UNLESS_EQUAL_SKIP(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
    struct sock_filter head[] = {
        LOAD(arch, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        RETURN(SECCOMP_RET_ALLOW),
        LOAD(instruction_pointer, 4),
        UNLESS_EQUAL_SKIP(STUB_HIGH, 3),
        LOAD(instruction_pointer, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, PAGE, 1, 0),
        RETURN(SECCOMP_RET_ALLOW),
        LOAD(nr, 0),
    };
    memcpy(code, head, sizeof head);
    n = sizeof head / sizeof *head;
    for (size_t i = 0; i < COUNT; i++) {
        long number = WATCHED[i].number;
        int flags = -1;
        if (number == SYS_openat) flags = 2;
#ifdef SYS_open
        if (number == SYS_open) flags = 1;
#endif
        if (flags < 0) {
            code[n++] = (struct sock_filter)UNLESS_EQUAL_SKIP(number, 1);
            code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_TRAP);
        } else { /* Opening a file to read it changes nothing. */
            unsigned writes = O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
            code[n++] = (struct sock_filter)UNLESS_EQUAL_SKIP(number, 4);
            code[n++] = (struct sock_filter)LOAD(args, 8 * flags);
            code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, writes, 0, 1);
            code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_TRAP);
            code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
        }
    }
    code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        give_up("the system allows no filter of system calls");
}

__attribute__((constructor)) static void begin(void) {
    const char *counter_path = getenv("CAMPAIGN_COUNTER"), *log_path = getenv("CAMPAIGN_LOG");
    const char *at = getenv("CAMPAIGN_POINT"), *what = getenv("CAMPAIGN_DEED");
    if (!counter_path) return;
    /* In a child process the filter is there already: from here on only the stub may make a watched call. */
    make_stub();
    int fd = open(counter_path, O_RDWR | O_CLOEXEC);
    counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || counter == MAP_FAILED) give_up("no counter");
    close(fd);
    if (log_path) {
        int opened = call(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644, 0, 0);
        /* Out of the way of the numbers the program gets. */
        log_fd = fcntl(opened, F_DUPFD_CLOEXEC, 900);
        close(opened);
    }
    if (at && what) {
        point = strtoull(at, NULL, 10);
        deed = !strcmp(what, "kill") ? KILL : !strcmp(what, "fail") ? FAIL : FULL;
    }
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL)) give_up("no handler");
    install_filter();
}
