"""The pack's ComfyUI nodes. ComfyUI is imported here and nowhere else in the pack."""

from comfy_api.latest import ComfyExtension, io

from .adapter import ApplyFluxIRAdapter, EmptyPrompt, LoadFluxIRAdapter
from .align import AlignToInput, DriftVerifier
from .budget_plan import BudgetPlan
from .caption import CaptionImage, DegradationCheck
from .color import MatchColor
from .compare import BeforeAndAfter
from .degrade import DegradeImage
from .detail import GiveBackDetail
from .evaluate import EvaluateRestoration
from .few_steps import DistilledSigmas, NoisyStartLatent
from .fidelity import InventedDetail, RestorationFidelity
from .fluxgen import SaveImagePairs, SelectImages
from .folders import register_model_folders
from .lucidflux import ApplyLucidFlux, ApplyLucidFluxLoRA, LoadLucidFlux, LucidFluxSigmas
from .peft_lora import ApplyPEFTLoRA, ApplyVAELoRA
from .photo import DecodePhoto, EncodePhoto
from .photo_folder import LoadNextPhotos, SavePhotoByName
from .reward_models import AestheticVerifier, CLIPScoreVerifier, ImageRewardVerifier, PyIQAVerifier
from .samples import place_samples
from .search import SearchReportChart, TTSSampler, TTSSamplerSelect
from .search_algorithms import EvolutionarySearchAlgorithm, ParticleSearchAlgorithm, StepwiseSearchAlgorithm
from .stored_prompt import LoadStoredPrompt
from .tile_prompts import PromptPerTile, SplitIntoTiles
from .tiles import TileModel
from .ummf import ApplyUMMFLoRA, UMMFConditioning
from .verifiers import NaturalImageVerifier, ScoreImages, VerifierEnsemble


class FluxIRExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folders()
        place_samples()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadFluxIRAdapter,
            ApplyFluxIRAdapter,
            EmptyPrompt,
            LoadLucidFlux,
            ApplyLucidFluxLoRA,
            ApplyLucidFlux,
            LucidFluxSigmas,
            LoadStoredPrompt,
            ApplyPEFTLoRA,
            ApplyVAELoRA,
            UMMFConditioning,
            ApplyUMMFLoRA,
            TileModel,
            SplitIntoTiles,
            PromptPerTile,
            DegradationCheck,
            CaptionImage,
            DistilledSigmas,
            NoisyStartLatent,
            EncodePhoto,
            DecodePhoto,
            LoadNextPhotos,
            SavePhotoByName,
            BeforeAndAfter,
            MatchColor,
            GiveBackDetail,
            AlignToInput,
            DriftVerifier,
            RestorationFidelity,
            InventedDetail,
            TTSSampler,
            TTSSamplerSelect,
            SearchReportChart,
            NaturalImageVerifier,
            VerifierEnsemble,
            ScoreImages,
            AestheticVerifier,
            CLIPScoreVerifier,
            ImageRewardVerifier,
            PyIQAVerifier,
            EvolutionarySearchAlgorithm,
            StepwiseSearchAlgorithm,
            ParticleSearchAlgorithm,
            BudgetPlan,
            DegradeImage,
            SelectImages,
            SaveImagePairs,
            EvaluateRestoration,
        ]
