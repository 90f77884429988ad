// The cases' library as seen from Python's ctypes: run one by name, ask for what the checker found.
#include "cases.h"

#include "simt/reports.h"

#include <string>
#include <vector>

namespace gpucnn::simt {

// In the race flavour the linker takes the checker's.
__attribute__((weak)) std::vector<std::string> take_reports() {
  return {};
}

}  // namespace gpucnn::simt

namespace {

const cases::Case*& first() {
  static const cases::Case* head = nullptr;
  return head;
}

std::string text;  // of the last answer

}  // namespace

cases::Case::Case(const char* name_, bool (*run_)()) : name(name_), run(run_), next(first()) {
  first() = this;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// The names of all cases, one a line.
EXPORT const char* case_names() {
  text.clear();
  for (const cases::Case* one = first(); one; one = one->next) text += std::string(one->name) + "\n";
  return text.c_str();
}

// "right", "wrong", "fault: <text>", or "no such case".
EXPORT const char* run_case(const char* name, const char* order) {
  text = "no such case";
  for (const cases::Case* one = first(); one; one = one->next) {
    if (one->name != std::string(name)) continue;
    try {
      gpucnn::simt::set_order(order);
      text = one->run() ? "right" : "wrong";
    } catch (const gpucnn::simt::Fault& fault) {
      text = std::string("fault: ") + fault.what();
    }
  }
  return text.c_str();
}

// What the checker found since the last call, one finding a line.
EXPORT const char* take_reports() {
  text.clear();
  for (const std::string& report : gpucnn::simt::take_reports()) text += report + "\n";
  return text.c_str();
}
