#include "simt/block.h"

#include "simt/texts.h"

namespace gpucnn::simt {

void observe(Observer* observer) {
  detail::observer = observer;
}
int current_thread() {
  return detail::block.running;
}
bool is_on_a_stack(const void* p) {
  return detail::is_in_stacks(p);
}
void let_others_run() {
  detail::wake(detail::block.running);
  detail::suspend();
}
void stop(const char* text) {
  detail::stop_with([text] { return detail::thread_in_words(detail::block.running) + ": " + text; });
}

namespace detail {

uint3 thread_index, block_index;
dim3 block_shape, grid_shape;
Block block;
Observer* observer = nullptr;

namespace {

// Why the block was given up, for the launching thread.
std::string (*describe_stop)(const void*) = nullptr;
const void* stop_details = nullptr;

void run_thread(int thread) {
  Fiber& from = block.running < 0 ? block.launcher : block.thread[block.running].fiber;
  Thread& next = block.thread[thread];
  block.running = thread;
  thread_index = next.index;
  switch_fiber(from, next.fiber);
}

void return_to_launcher() {
  Fiber& from = block.thread[block.running].fiber;
  switch_fiber(from, block.launcher);
}

// The running thread has come back from the kernel. Nobody may wait for it.
void note_return() {
  const int me = block.running;
  Warp& warp = block.warp[me / 32];
  block.thread[me].state = Thread::kReturned;
  ++block.returned;
  warp.returned |= 1u << me % 32;
  if (block.in_barrier > 0) {
    stop_with([me] {
      return thread_in_words(me) +
             " returned from the kernel while others wait for it at a barrier: " + waiting_in_words();
    });
  }
  for (int i = 0; i < warp.meetings; ++i) {
    if (warp.meeting[i].lanes >> me % 32 & 1) {
      stop_with([me] {
        return thread_in_words(me) +
               " returned from the kernel while lanes of its warp wait for it: " + waiting_in_words();
      });
    }
  }
}

void thread_main() {
  begin_fiber(block.thread[block.running].fiber, block.launcher);
  for (;;) {  // once for each block of the grid
    block.launch->thread(block.launch->closure);
    note_return();
    const int next = block.ready.pop();
    if (next >= 0) {
      run_thread(next);
    } else if (block.returned == block.threads) {
      return_to_launcher();
    } else {
      stop_with([] { return "deadlock, no thread can go on: " + waiting_in_words(); });
    }
  }
}

}  // namespace

void suspend() {
  const int next = block.ready.pop();
  if (next < 0) stop_with([] { return "deadlock, no thread can go on: " + waiting_in_words(); });
  if (next != block.running) run_thread(next);
}

void wake(int thread) {
  block.thread[thread].state = Thread::kReady;
  block.ready.push(thread);
}

void prepare_threads() {
  block.threads = static_cast<int>(block_shape.x * block_shape.y * block_shape.z);
  provide_stacks(block.threads);
  block.launcher = Fiber{};
  for (int i = 0; i < block.threads; ++i) {
    const unsigned linear = static_cast<unsigned>(i);
    Thread& thread = block.thread[i];
    thread.index = {linear % block_shape.x, linear / block_shape.x % block_shape.y,
                    linear / (block_shape.x * block_shape.y)};
    prepare_fiber(thread.fiber, i, &thread_main);
  }
}

void run_block() {
  block.returned = block.in_barrier = 0;
  for (int i = 0; i < block.threads; ++i) block.thread[i].state = Thread::kReady;
  for (int i = 0; 32 * i < block.threads; ++i) {
    Warp& warp = block.warp[i];
    const int lanes = block.threads - 32 * i;
    warp.lanes = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    warp.returned = 0;
    warp.meetings = 0;
  }
  block.ready.begin_block(block.threads);
  describe_stop = nullptr;
  run_thread(block.ready.pop());  // comes back when the last thread has returned, or something stopped the block
  if (describe_stop) throw_fault(describe_stop(stop_details));
  block.running = -1;
}

void stop_block(std::string (*describe)(const void*), const void* details) {
  describe_stop = describe;
  stop_details = details;
  return_to_launcher();
  __builtin_unreachable();  // nobody switches to a fiber of a block that was given up
}

void block_barrier(Site site) {
  const int me = block.running;
  if (block.in_barrier == 0) {
    block.barrier = site;
  } else if (!is_same(block.barrier, site)) {
    stop_with([me, site] {
      return "divergent barrier: " + thread_in_words(me) + " comes to __syncthreads() at " + in_words(site) +
             " while " + waiting_in_words();
    });
  }
  if (block.returned > 0) {
    stop_with([me, site] {
      return thread_in_words(me) + " waits in __syncthreads() at " + in_words(site) + " for " +
             threads_in_words(threads_that([](const Thread& thread) { return thread.state == Thread::kReturned; })) +
             ", which returned from the kernel before it";
    });
  }
  Thread& thread = block.thread[me];
  thread.state = Thread::kInBarrier;
  if (++block.in_barrier == block.threads) {
    block.in_barrier = 0;
    if (observer) observer->block_met();
    for (int i = 0; i < block.threads; ++i) wake(block.ready.is_reversed() ? block.threads - 1 - i : i);
  }
  suspend();
}

}  // namespace detail
}  // namespace gpucnn::simt
