#include "simt/texts.h"

#include "simt/meeting.h"
#include "simt/source_line.h"

#include <cstdio>
#include <vector>

namespace gpucnn::simt::detail {
namespace {

std::string returned_in_words() {
  const Threads returned = threads_that([](const Thread& thread) { return thread.state == Thread::kReturned; });
  return returned.none() ? "" : threads_in_words(returned) + " returned";
}

std::string in_barrier_in_words() {
  const Threads waiting = threads_that([](const Thread& thread) { return thread.state == Thread::kInBarrier; });
  return waiting.none() ? ""
                        : threads_in_words(waiting) + (waiting.count() == 1 ? " waits" : " wait") +
                              " in __syncthreads() at " + in_words(block.barrier);
}

std::string meeting_in_words(int warp, const Meeting& meeting) {
  Threads waiting;
  for (std::size_t lane = 0; lane < 32; ++lane)
    waiting[32 * static_cast<std::size_t>(warp) + lane] = meeting.arrived >> lane & 1;
  return threads_in_words(waiting) + (waiting.count() == 1 ? " waits" : " wait") + " in " + meeting.operation->name +
         " at " + in_words(meeting.site) + " for lanes " + mask_in_words(meeting.lanes);
}

}  // namespace

std::string in_words(dim3 shape) {
  return "(" + std::to_string(shape.x) + ", " + std::to_string(shape.y) + ", " + std::to_string(shape.z) + ")";
}

std::string in_words(Site site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

std::string mask_in_words(std::uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

std::string thread_in_words(int thread) {
  if (block_shape.y == 1 && block_shape.z == 1) return "thread " + std::to_string(thread);
  const uint3 index = block.thread[thread].index;
  return "thread " + in_words(dim3(index.x, index.y, index.z));
}

std::string threads_in_words(const Threads& threads) {
  std::string text;
  for (int first = 0; first < kMaxThreads; ++first) {
    if (!threads[static_cast<std::size_t>(first)]) continue;
    if (threads.count() == 1) return thread_in_words(first);
    int last = first;
    while (last + 1 < kMaxThreads && threads[static_cast<std::size_t>(last) + 1]) ++last;
    text += (text.empty() ? "threads " : ", ") + std::to_string(first);
    if (last > first) text += "-" + std::to_string(last);
    first = last;
  }
  return text;
}

std::string waiting_in_words() {
  constexpr std::size_t kShown = 6;  // of the things waited for: each says who and where
  std::vector<std::string> groups;
  if (block.in_barrier > 0) groups.push_back(in_barrier_in_words());
  for (int warp = 0; 32 * warp < block.threads; ++warp) {
    const Warp& of = block.warp[static_cast<std::size_t>(warp)];
    for (int i = 0; i < of.meetings; ++i)
      groups.push_back(meeting_in_words(warp, of.meeting[static_cast<std::size_t>(i)]));
  }
  const std::string returned = returned_in_words();
  std::string text;
  for (std::size_t i = 0; i < groups.size() && i < kShown; ++i) text += (i ? "; " : "") + groups[i];
  if (groups.size() > kShown) text += "; and so in " + std::to_string(groups.size() - kShown) + " more places";
  if (!returned.empty()) text += (text.empty() ? "" : "; ") + returned;
  return text;
}

void throw_fault(const std::string& text) {
  throw Fault("simt: kernel " + kernel_name(block.launch->info.kernel) + ", block " +
              in_words(dim3(block_index.x, block_index.y, block_index.z)) + ": " + text);
}

}  // namespace gpucnn::simt::detail
