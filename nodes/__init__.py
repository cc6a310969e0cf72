"""The pack's ComfyUI nodes. ComfyUI is imported here and nowhere else in the pack."""

from comfy_api.latest import ComfyExtension, io

from . import search_metadata
from .adapter import ApplyFluxIRAdapter, EmptyPrompt, LoadFluxIRAdapter
from .align import AlignToInput, DriftVerifier
from .budget_plan import BudgetPlan
from .caption import CaptionImage, DegradationCheck
from .choose import ChooseYourself
from .color import MatchColor
from .compare import BeforeAndAfter
from .degrade import DegradeImage
from .detail import GiveBackDetail
from .evaluate import EvaluateRestoration
from .few_steps import DistilledSigmas, NoisyStartLatent
from .fidelity import InventedDetail, RestorationFidelity
from .fluxgen import SaveImagePairs, SelectImages
from .folders import register_model_folders
from .kept_choices import add_choices_routes
from .lucidflux import ApplyLucidFlux, ApplyLucidFluxLoRA, LoadLucidFlux, LucidFluxSigmas
from .peft_lora import ApplyPEFTLoRA, ApplyVAELoRA
from .photo import DecodePhoto, EncodePhoto
from .photo_folder import LoadNextPhotos, SavePhotoByName
from .questions import add_question_routes
from .reward_models import AestheticVerifier, CLIPScoreVerifier, ImageRewardVerifier, PyIQAVerifier
from .runtime import current_server
from .samples import place_samples
from .search import SearchReportChart, TTSSampler, TTSSamplerSelect
from .search_algorithms import EvolutionarySearchAlgorithm, ParticleSearchAlgorithm, StepwiseSearchAlgorithm
from .stored_prompt import LoadStoredPrompt
from .taste import MyTaste
from .tile_prompts import PromptPerTile, SplitIntoTiles
from .tiles import TileModel
from .ummf import ApplyUMMFLoRA, UMMFConditioning
from .verifiers import NaturalImageVerifier, ScoreImages, VerifierEnsemble


class FluxIRExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folders()
        place_samples()
        search_metadata.register()
        server = current_server()
        if server is not None:
            add_question_routes(server)
            add_choices_routes(server)

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
            ChooseYourself,
            MyTaste,
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
