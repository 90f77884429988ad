#include "simt/race_report.h"

#include "simt/source_line.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace gpucnn::simt::race {
namespace {

std::string in_words(const uint3& index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

std::string in_words(const void* address) {
  char text[32];
  std::snprintf(text, sizeof text, "%p", address);
  return text;
}

const char* name(Kind kind) {
  switch (kind) {
    case Kind::read:
      return "read";
    case Kind::write:
      return "write";
    case Kind::atomic:
      return "atomic";
  }
  return "access";
}

// What `find` says of an address, asked once: it starts a process, and few places are wrong in many ways.
class Names {
 public:
  explicit Names(std::string (*find)(const void*)) : find_(find) {}

  const std::string& operator()(const void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto [found, is_new] = known_.try_emplace(address);
    if (is_new) found->second = find_(address);
    return found->second;
  }

 private:
  std::string (*find_)(const void*);
  std::mutex mutex_;
  std::map<const void*, std::string> known_;
};

Names line_of(&source_line), name_of(&kernel_name);

std::string act_in_words(const Party& party) {
  std::string text = name(party.kind);
  if (party.bytes != 0) text += " of " + std::to_string(party.bytes) + (party.bytes == 1 ? " byte" : " bytes");
  return text;
}

std::string in_words(const Party& party) {
  return act_in_words(party) + " by thread " + in_words(party.thread) + " of block " + in_words(party.block) + " at " +
         line_of(party.site);
}

// "byte 132 of shared 'tile' (2112 bytes)", or how far from its start or its end.
std::string in_words(const Place& place) {
  std::string thing;
  if (place.is_shared) {
    if (place.array == nullptr) return "byte " + std::to_string(place.offset) + " of shared memory, before any array";
    thing = std::string("shared '") + place.array + "'";
  } else {
    if (place.buffer == nullptr) return "address " + in_words(reinterpret_cast<const void*>(place.offset));
    thing = "buffer " + in_words(place.buffer);
  }
  thing += " (" + std::to_string(place.extent) + " bytes)";
  const auto extent = static_cast<std::ptrdiff_t>(place.extent);
  if (place.offset < 0) return std::to_string(-place.offset) + " bytes before the start of " + thing;
  if (place.offset >= extent) return std::to_string(place.offset - extent) + " bytes past the end of " + thing;
  return "byte " + std::to_string(place.offset) + " of " + thing;
}

const char* title(Problem problem) {
  switch (problem) {
    case Problem::race:
      return "data race";
    case Problem::uninitialised:
      return "uninitialised shared memory";
    case Problem::in_flight:
      return "cp.async not waited for";
    case Problem::beyond_shared:
      return "outside every shared array";
    case Problem::beyond_buffers:
      return "outside every registered buffer";
  }
  return "finding";
}

}  // namespace

std::string describe(const Finding& finding) {
  std::string text = std::string(title(finding.problem)) + " in " + name_of(finding.kernel) + ": " +
                     in_words(finding.now) + ", " + in_words(finding.place);
  if (finding.earlier.site != nullptr) text += "; earlier " + in_words(finding.earlier);
  return text;
}

std::string describe_alone(const Finding& finding) {
  return act_in_words(finding.now) + " at " + line_of(finding.now.site) + ", " + in_words(finding.place) + ", " +
         title(finding.problem);
}

void Findings::add(const Finding& finding) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Key key{finding.problem, finding.now.site, finding.earlier.site};
  if (const auto found = index_.find(key); found != index_.end()) {
    ++findings_[found->second].count;
  } else if (findings_.size() < kFindings) {
    index_.emplace(key, findings_.size());
    findings_.push_back(finding);
  } else {
    ++beyond_;
  }
}

void Findings::add_forgotten() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++forgotten_;
}

std::vector<std::string> Findings::take() {
  std::vector<Finding> findings;
  std::size_t beyond, forgotten;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    index_.clear();
    findings = std::exchange(findings_, {});
    beyond = std::exchange(beyond_, 0);
    forgotten = std::exchange(forgotten_, 0);
  }

  // One source line becomes several program counters where loops are unrolled and templates instantiated.
  std::vector<std::pair<const Finding*, std::size_t>> distinct;  // with its count
  std::map<std::tuple<Problem, std::string, std::string>, std::size_t> index;
  for (const Finding& finding : findings) {
    const std::string earlier = finding.earlier.site == nullptr ? "" : line_of(finding.earlier.site);
    const auto [found, is_new] =
        index.try_emplace({finding.problem, line_of(finding.now.site), earlier}, distinct.size());
    if (is_new) distinct.emplace_back(&finding, 0);
    distinct[found->second].second += finding.count;
  }

  std::vector<std::string> texts;
  for (const auto& [finding, count] : distinct) {
    if (texts.size() < kTexts) {
      texts.push_back(describe(*finding) + (count > 1 ? " (" + std::to_string(count) + " times)" : ""));
    } else {
      beyond += count;
    }
  }
  if (beyond != 0) texts.push_back(std::to_string(beyond) + " findings more at other lines, which are not listed");
  if (forgotten != 0) {
    texts.push_back(
        "incomplete: launches touched more global memory than the race checker remembers; it started anew " +
        std::to_string(forgotten) + (forgotten == 1 ? " time" : " times") +
        ", and races across these moments were not seen");
  }
  return texts;
}

}  // namespace gpucnn::simt::race
