// Rectifiers, forward and backward: the functions of rectifier.h. Layout, blocks, threads, limits and the bound are
// those of elementwise/map.h.
#include "activation/rectifier.h"
#include "elementwise/map.h"

namespace gpucnn {

void add_rectifiers(MapFunctions& functions) {
  functions.insert(
      functions.end(),
      {flat<Relu>("relu"), flat<ReluGrad>("relu_grad"), flat<Hardtanh>("hardtanh"), flat<HardtanhGrad>("hardtanh_grad"),
       flat<LeakyRelu>("leaky_relu"), flat<LeakyReluGrad>("leaky_relu_grad"), flat<Threshold>("threshold"),
       flat<ThresholdGrad>("threshold_grad"), flat<Hardshrink>("hardshrink"), flat<HardshrinkGrad>("hardshrink_grad"),
       flat<Softshrink>("softshrink"), flat<Elu>("elu"), flat<EluGradOfOutput>("elu_grad_of_output"),
       flat<EluGradOfInput>("elu_grad_of_input"), walked<Prelu>("prelu"), walked<PreluGrad>("prelu_grad"),
       walked<PreluWeightGrad>("prelu_weight_grad")});
}

}  // namespace gpucnn
