// The race checker's store of findings, filled by hand: what it does with more than it keeps. For the race flavour.
#include "cases.h"
#include "simt/race_report.h"

#include <string>

namespace {

namespace race = gpucnn::simt::race;

// `pairs` findings of different instructions, each `times` times, in a module that nobody knows.
std::string texts_of(std::size_t pairs, std::size_t times) {
  race::Findings findings;
  for (std::size_t i = 0; i < pairs * times; ++i) {
    race::Finding finding{};
    finding.problem = race::Problem::uninitialised;
    finding.now.site = reinterpret_cast<const void*>(i % pairs + 1);
    finding.count = 1;
    findings.add(finding);
  }
  std::string all;
  for (const std::string& text : findings.take()) all += text + "\n";
  return findings.take().empty() ? all : "not forgotten";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

CASE(findings_of_one_line_are_one) {
  const std::string texts = texts_of(3, 5);
  return contains(texts, "an unknown line") && contains(texts, " (15 times)\n") && texts.find('\n') == texts.size() - 1;
}
CASE(findings_beyond_the_bound_are_counted) {
  const std::string texts = texts_of(500, 2);
  return contains(texts, " (800 times)\n") && contains(texts, "\n200 findings more");
}

}  // namespace
