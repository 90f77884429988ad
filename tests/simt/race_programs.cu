// Random programs under the race checker, against the definition: two accesses to one byte race if they are of
// different threads, not both reads, not both atomics, and no barrier that both threads come to lies between them.
//
// A program is a few accesses by random threads at random steps, with __syncthreads() or __syncwarp() at others. Every
// warp is cut into groups of lanes, the masks of its __syncwarp()s, which stay the same for all of a program.
#include "cases.h"
#include "simt/reports.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

using cases::Array;

constexpr int kThreads = 64, kBlocks = 2, kSteps = 12, kBytes = 16;

enum Code { kNothing, kRead, kWrite, kAtomic, kBarrier, kGroup, kShuffle };

// What a thread does at one step. At each step either all threads meet, or all but a few do nothing.
struct Step {
  int code;
  int is_shared, offset, bytes;  // of an access: a multiple of its 1, 2 or 4 bytes
};

struct Program {
  std::vector<Step> steps = std::vector<Step>(std::size_t{kBlocks} * kThreads * kSteps, Step{kNothing, 0, 0, 0});
  int group = 32;  // lanes that meet in a __syncwarp(): a power of two

  Step& at(int block, int thread, int step) { return steps[(block * kThreads + thread) * kSteps + step]; }
};

template <typename T>
__device__ void touch(int code, void* p) {
  volatile T* const at = static_cast<volatile T*>(p);
  if (code == kRead) static_cast<void>(*at);
  if (code == kWrite) *at = 1;
}

__global__ void run(const Step* steps, unsigned char* global, int group) {
  SIMT_SHARED(unsigned char, shared, [kBytes]);
  const int t = threadIdx.x;
  if (t < kBytes) shared[t] = 0;
  __syncthreads();
  const int first = t % 32 / group * group;
  const unsigned mask = (group == 32 ? 0xffffffffu : (1u << group) - 1) << first;
  for (int i = 0; i < kSteps; ++i) {
    const Step step = steps[(blockIdx.x * kThreads + t) * kSteps + i];
    unsigned char* const p = (step.is_shared ? shared : global) + step.offset;
    if (step.code == kBarrier) __syncthreads();
    if (step.code == kGroup) __syncwarp(mask);
    if (step.code == kShuffle) static_cast<void>(__shfl_sync(mask, t, first));
    if (step.code == kAtomic) atomicAdd(reinterpret_cast<int*>(p), 1);
    if (step.bytes == 1) touch<unsigned char>(step.code, p);
    if (step.bytes == 2) touch<unsigned short>(step.code, p);
    if (step.bytes == 4) touch<unsigned>(step.code, p);
  }
}

Program draw(std::mt19937& random) {
  const auto below = [&random](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  Program program;
  program.group = 4 << below(4);
  int threads[6];
  for (int i = 0; i < 6; ++i) threads[i] = below(i < 2 ? kThreads : i < 4 ? 32 : 8);
  const int meetings = below(4), memory = below(3);  // how many steps of four meet; memory 0: both, else shared alone
  for (int i = 0; i < kSteps; ++i) {
    if (below(4) < meetings) {
      const int kind = below(6);
      const int code = kind == 0 ? kBarrier : kind < 4 ? kGroup : kShuffle;
      for (int b = 0; b < kBlocks; ++b) {
        for (int t = 0; t < kThreads; ++t) program.at(b, t, i).code = code;
      }
      continue;
    }
    const int code = kRead + below(3), accesses = 1 + below(3);
    for (int j = 0; j < accesses; ++j) {
      const int bytes = code == kAtomic ? 4 : 1 << below(3);
      const int offset = below(below(2) ? 4 : kBytes) / bytes * bytes;
      const int is_shared = memory > 0 ? 1 : below(2);
      program.at(below(8) == 0, threads[below(6)], i) = {code, is_shared, offset, bytes};
    }
  }
  return program;
}

struct Access {
  int block, thread, when;
  Step step;
};

bool is_ordered(Program& program, const Access& a, const Access& b) {
  if (a.block != b.block) return false;
  if (a.thread == b.thread) return true;
  for (int i = std::min(a.when, b.when) + 1; i < std::max(a.when, b.when); ++i) {
    const int code = program.at(a.block, a.thread, i).code;
    if (code == kBarrier || (code == kGroup && a.thread / program.group == b.thread / program.group)) return true;
  }
  return false;
}

bool has_race(Program& program) {
  std::vector<Access> accesses;
  for (int b = 0; b < kBlocks; ++b) {
    for (int t = 0; t < kThreads; ++t) {
      for (int i = 0; i < kSteps; ++i) {
        const Step& step = program.at(b, t, i);
        if (step.bytes > 0) accesses.push_back({b, t, i, step});
      }
    }
  }
  for (const Access& a : accesses) {
    for (const Access& b : accesses) {
      const bool overlap = a.step.is_shared == b.step.is_shared && (!a.step.is_shared || a.block == b.block) &&
                           a.step.offset < b.step.offset + b.step.bytes && b.step.offset < a.step.offset + a.step.bytes;
      const bool excludes = a.step.code == kWrite || a.step.code != b.step.code;
      if (&a != &b && overlap && excludes && !is_ordered(program, a, b)) return true;
    }
  }
  return false;
}

CASE(programs_race_where_the_definition_says) {
  const char* const given = std::getenv("GPUCNN_TEST_SEED");
  const unsigned seed = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : 1;
  constexpr int kPrograms = 2000;
  int races = 0;
  for (int i = 0; i < kPrograms; ++i) {
    std::mt19937 random(seed * kPrograms + static_cast<unsigned>(i));
    Program program = draw(random);
    Array<Step> steps(program.steps.size());
    Array<int> global(kBytes / sizeof(int));
    std::copy(program.steps.begin(), program.steps.end(), steps.data());
    cases::launch(run, kBlocks, kThreads, 0, steps.data(), reinterpret_cast<unsigned char*>(global.data()),
                  program.group);
    const std::vector<std::string> reports = gpucnn::simt::take_reports();
    const bool expected = has_race(program);
    races += expected;
    if (expected == !reports.empty()) continue;
    std::fprintf(stderr, "program %d of seed %u %s %s\n", i, seed,
                 expected ? "races and is not reported" : "does not race:", reports.empty() ? "" : reports[0].c_str());
    return false;
  }
  return races > kPrograms / 10 && races < kPrograms * 9 / 10;  // else they would be no question
}

}  // namespace
