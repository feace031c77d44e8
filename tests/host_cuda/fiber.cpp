#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace host_cuda {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = size_t{256} << 10;
#else
constexpr size_t kStackBytes = size_t{64} << 10;
#endif

#if defined(__x86_64__)
// Saves what a call must preserve, changes stacks and returns on the other one; swapcontext would make two
// system calls.
using Context = void*;
extern "C" void host_cuda_swap(Context* from, Context to);
asm(R"(
.text
.globl host_cuda_swap
.hidden host_cuda_swap
.type host_cuda_swap, @function
host_cuda_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size host_cuda_swap, .-host_cuda_swap
)");

void swap(Context* from, Context* to) { host_cuda_swap(from, *to); }

void start_at(Context* context, char* stack, void (*entry)()) {
  uintptr_t* top = reinterpret_cast<uintptr_t*>(stack + kStackBytes);
  *--top = 0;  // a return address that `entry` never uses; keeps the stack aligned as after a call
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  *context = top;
}
#else
using Context = ucontext_t;

void swap(Context* from, Context* to) { swapcontext(from, to); }

void start_at(Context* context, char* stack, void (*entry)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}
#endif

struct Fiber {
  Context context;
  const std::function<void()>* body;
  bool done;
};

// One page below each stack is no memory, so that an overflow stops at once.
char* map_stacks() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t stride = kStackBytes + page;
  void* memory = mmap(nullptr, kMaxFibers * stride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  for (int i = 0; i < kMaxFibers; ++i) mprotect(static_cast<char*>(memory) + i * stride, page, PROT_NONE);
  return static_cast<char*>(memory);
}

char* stack_of(int index) {
  static char* const stacks = map_stacks();
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return stacks + index * (kStackBytes + page) + page;
}

Fiber fibers[kMaxFibers];
Context host;
int current;

// The sanitizer is told of every change of stacks.
#if defined(__SANITIZE_ADDRESS__)
const void* host_stack;
size_t host_stack_bytes;

void change_stack(Context* from, Context* to, const void* stack, size_t bytes, bool last) {
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack, stack, bytes);
  swap(from, to);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void arrived_in_fiber() { __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes); }
void forget_stack(char* stack) { __asan_unpoison_memory_region(stack, kStackBytes); }
void to_host(bool last) { change_stack(&fibers[current].context, &host, host_stack, host_stack_bytes, last); }
void to_fiber() { change_stack(&host, &fibers[current].context, stack_of(current), kStackBytes, false); }
#else
void arrived_in_fiber() {}
void forget_stack(char*) {}
void to_host(bool) { swap(&fibers[current].context, &host); }
void to_fiber() { swap(&host, &fibers[current].context); }
#endif

void run_body() {
  arrived_in_fiber();
  (*fibers[current].body)();
  fibers[current].done = true;
  to_host(true);
}

}  // namespace

void prepare_fiber(int index, const std::function<void()>* body) {
  char* stack = stack_of(index);
  forget_stack(stack);
  fibers[index].body = body;
  fibers[index].done = false;
  start_at(&fibers[index].context, stack, run_body);
}

bool enter_fiber(int index) {
  current = index;
  to_fiber();
  return fibers[index].done;
}

void leave_fiber() { to_host(false); }

}  // namespace host_cuda
